# lwip: a library of lwIP 2.1.3, configured by guestos/kernel/net/lwip. Its source is Debian's source package, fetched and
# verified by scripts/fetch_lwip.py when it is first needed and kept outside the source tree; or -DLWIP_SRC=<folder>.
set(LWIP_SRC "" CACHE PATH "an unpacked lwIP 2.1.3 (the folder that has src/core); empty: fetch Debian's source package")

# One copy for all builds below one root; a build folder elsewhere has its own.
cmake_path(IS_PREFIX CMAKE_SOURCE_DIR ${CMAKE_BINARY_DIR} NORMALIZE lwip_inside)
if(DEFINED ENV{BULKHEAD_BUILD})
  set(lwip_cache $ENV{BULKHEAD_BUILD}/downloads/lwip)
elseif(lwip_inside)
  set(lwip_cache ${CMAKE_SOURCE_DIR}/build/downloads/lwip)
else()
  set(lwip_cache ${CMAKE_BINARY_DIR}/downloads/lwip)
endif()
cmake_path(ABSOLUTE_PATH lwip_cache BASE_DIRECTORY ${CMAKE_SOURCE_DIR})

if(NOT LWIP_SRC)
  set(lwip_root ${lwip_cache}/src)
elseif(EXISTS ${LWIP_SRC}/src/core/tcp.c)
  set(lwip_root ${LWIP_SRC}/src)
elseif(EXISTS ${LWIP_SRC}/core/tcp.c)
  set(lwip_root ${LWIP_SRC})
else()
  message(FATAL_ERROR "LWIP_SRC: ${LWIP_SRC} has no src/core/tcp.c; it must be an unpacked lwIP 2.1.3")
endif()

set(lwip_sources netif/ethernet.c)
foreach(name def dns inet_chksum init ip mem memp netif pbuf raw stats sys tcp tcp_in tcp_out timeouts udp
        ipv4/dhcp ipv4/etharp ipv4/icmp ipv4/ip4 ipv4/ip4_addr ipv4/ip4_frag)
  list(APPEND lwip_sources core/${name}.c)
endforeach()
list(TRANSFORM lwip_sources PREPEND ${lwip_root}/)

if(NOT LWIP_SRC)
  # Debian's own interpreter, as for scripts/bulkhead.
  add_custom_command(OUTPUT ${lwip_sources} ${lwip_root}/include/lwip/init.h
      COMMAND /usr/bin/python3 ${CMAKE_SOURCE_DIR}/scripts/fetch_lwip.py ${lwip_cache}
      COMMENT "lwIP: source package to ${lwip_cache}" VERBATIM)
endif()
add_custom_target(lwip_source DEPENDS ${lwip_sources})

add_library(lwip STATIC ${lwip_sources})
add_dependencies(lwip lwip_source)
target_include_directories(lwip PUBLIC ${CMAKE_SOURCE_DIR}/guestos/kernel/net/lwip)
# Not our code: its warnings are not ours to judge, in its headers neither.
target_include_directories(lwip SYSTEM PUBLIC ${CMAKE_SOURCE_DIR}/guestos/kernel/net/libc ${lwip_root}/include)
# Every byte that is sent or received passes here: compiled for speed in debug builds too.
target_compile_options(lwip PRIVATE ${BULKHEAD_FREESTANDING} -w -O2)
