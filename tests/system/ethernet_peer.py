"""
A peer on the wire, frame by frame: QEMU's `-netdev dgram` sends and takes each Ethernet frame as a UDP datagram on 127.0.0.1.
It owns every address of its network: answers ARP, ICMP echo requests and DNS questions, and can send any frame whatsoever.
"""

import socket
import struct
import threading

from bare import free_port

MAC = bytes.fromhex("525400bbbbbb")
ETHERTYPE_ARP, ETHERTYPE_IP = 0x0806, 0x0800
ICMP, UDP = 1, 17
DNS_PORT = 53


def checksum(data):
    """RFC 1071."""
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def ip_packet(protocol, source, target, payload):
    header = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 20 + len(payload), 1, 0, 64, protocol, 0, source, target)
    return header[:10] + struct.pack(">H", checksum(header)) + header[12:] + payload


class EthernetPeer:
    """names: what its DNS knows, {name: address}. Use as a context manager."""

    def __init__(self, names):
        self.names = names
        self.guest_port = free_port(socket.SOCK_DGRAM)
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.guest_mac = None  # known after the guest's first frame
        self.questions = []
        self.thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *exc):
        # A datagram to itself ends the thread: closing a socket does not wake a blocked receive.
        self.socket.sendto(b"", self.socket.getsockname())
        self.thread.join()
        self.socket.close()

    def netdev(self):
        return (f"dgram,id=n,local.type=inet,local.host=127.0.0.1,local.port={self.guest_port},"
                f"remote.type=inet,remote.host=127.0.0.1,remote.port={self.socket.getsockname()[1]}")

    def send(self, frame):
        self.socket.sendto(frame, ("127.0.0.1", self.guest_port))

    def send_ip(self, packet):
        self.send(self.guest_mac + MAC + struct.pack(">H", ETHERTYPE_IP) + packet)

    def _serve(self):
        while frame := self.socket.recv(65536):
            self.guest_mac = frame[6:12]
            kind = struct.unpack(">H", frame[12:14])[0]
            if kind == ETHERTYPE_ARP and frame[20:22] == b"\0\1":
                self._answer_arp(frame[14:42])
            elif kind == ETHERTYPE_IP:
                self._answer_ip(frame[14:])

    def _answer_arp(self, request):
        sender_mac, sender, wanted = request[8:14], request[14:18], request[24:28]
        if wanted == sender:
            return  # the guest asks whether somebody has its own address
        self.send(sender_mac + MAC + struct.pack(">H", ETHERTYPE_ARP) + request[:6] + b"\0\2" + MAC + wanted + sender_mac
                  + sender)

    def _answer_ip(self, packet):
        size = (packet[0] & 15) * 4
        source, target = packet[12:16], packet[16:20]
        payload = packet[size:struct.unpack(">H", packet[2:4])[0]]
        if packet[9] == ICMP and payload[0] == 8:
            reply = b"\0\0\0\0" + payload[4:]
            self.send_ip(ip_packet(ICMP, target, source, reply[:2] + struct.pack(">H", checksum(reply)) + reply[4:]))
        elif packet[9] == UDP and struct.unpack(">H", payload[2:4])[0] == DNS_PORT:
            answer = self._answer_dns(payload[8:])
            # A UDP checksum of zero: none.
            head = struct.pack(">HHHH", DNS_PORT, struct.unpack(">H", payload[:2])[0], 8 + len(answer), 0)
            self.send_ip(ip_packet(UDP, target, source, head + answer))

    def _answer_dns(self, question):
        labels, at = [], 12
        while question[at]:
            labels.append(question[at + 1:at + 1 + question[at]].decode())
            at += 1 + question[at]
        name = ".".join(labels)
        self.questions.append(name)
        section = question[12:at + 5]
        if name not in self.names:
            return question[:2] + struct.pack(">HHHHH", 0x8183, 1, 0, 0, 0) + section
        answer = struct.pack(">HHHIH4s", 0xC00C, 1, 1, 60, 4, socket.inet_aton(self.names[name]))
        return question[:2] + struct.pack(">HHHHH", 0x8180, 1, 1, 0, 0) + section + answer
