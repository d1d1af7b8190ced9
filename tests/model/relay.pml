/*
 * The relay, the in-flight log and recovery, for Spin: one virtqueue, REQUESTS requests, TAGS tags, a driver VM that may
 * crash, lie and repeat itself at any step or be stopped, a device with a translation cache, and a guest that may reset its
 * device.
 *
 * What stands for what: a request names one page of the guest, with the request's number. One process is the hypervisor;
 * its sections are what hv/ does under its one lock (docs/decisions/002). Within a section, the steps that the driver's
 * vCPU, the device or the guest can see are steps here, too, and interleave with theirs; what is private to the hypervisor
 * between two of them is one step (atomic). File names above the sections say which code they model.
 *
 * Promises, as assertions:
 *   once        a request is published at most once
 *   not lost    when nothing can happen any more, each request is published, or was withdrawn by the guest's reset
 *   in order    a request is published only by the generation that it was given to, while its page is granted
 *   no late DMA the device writes into no page of a published request (strict grants), nor into one that the guest's
 *               reset gave back, nor at all while it has no live owner
 *
 * MUTANT: a seeded mistake that the checker must find; each says which line of the code it leaves out or moves.
 */
#define REQUESTS 3
#define TAGS 2
#ifndef CRASHES
#define CRASHES 2
#endif
#ifndef LIES
#define LIES 1
#endif
#ifndef RESETS
#define RESETS 1
#endif
#define NONE 7
#define ENTRIES 4 /* of the completion ring: a power of two, more than TAGS */

#define CLEAR_BEFORE_PUBLISH 1   /* complete.c: accept() removes from the log, publication in a later section */
#define KEEP_COMPLETIONS 2       /* restart.c: relay_reset_rings() leaves the completion ring as it was */
#define NO_FLUSH 3               /* grant.c: flush_stale() left out of grants_settle() */
#define BELIEVE_ANY_TAG 4        /* complete.c: accept() does not look whether the tag is in flight */
#define REVOKE_BEFORE_BLOCK 5    /* quiesce.c: grants back before vcpu_stop() and iommu_block(); no flush afterwards */
#define CLEAR_TOO_LATE 6         /* complete.c: the log is cleared in a section after the one that publishes */
#define FREE_TAG_AT_RESET 7      /* virtio_pci.c: the guest's reset frees the tags of what is in flight */
#define KEEP_OWNER 8             /* quiesce.c: bus mastering and domain stay as they are */
#define WAIT_FOR_STOPPED 9       /* virtio_pci.c: device_finish_reset() waits for the driver while there is none */
#ifndef MUTANT
#define MUTANT 0
#endif

/* The guest: what it has made available, and what it was shown. */
byte submitted;
byte published[REQUESTS];
bool withdrawn[REQUESTS]; /* in flight, or not taken yet, when the guest reset its device */
bool returned[REQUESTS];  /* the reset is done: the guest uses the page for something else */
bool resetting;
byte resets = RESETS;

/* hv/relay: the log (order: oldest first), the rings. */
byte taken; /* last_avail */
bool in_flight[TAGS], granted[TAGS];
byte request[TAGS];
byte order[TAGS], logged;
byte filled[REQUESTS], fills; /* used elements that the guest does not see yet */
byte ring[TAGS], ring_page[TAGS], produced; /* ring: one cell a request; counters modulo 2 * TAGS would do, bytes do, too */
byte entry[ENTRIES], entries; /* entries: what the driver says it has produced */
byte entry_generation[ENTRIES], entry_page[ENTRIES]; /* ghosts: who said it, and of which request; NONE: a lie */
byte completed;
bool open;

/* Tables, the device's translation cache, bus mastering and domain. */
bool table[REQUESTS], cached[REQUESTS];
bool owner; /* bus mastering on, device in the driver's domain */
byte owner_generation; /* ghost: whose request for bus mastering that was */

/* The driver VM and its device. */
bool up;         /* the vCPU may run */
bool crashed;    /* it never will again, by itself */
bool paused;     /* quiet, not started again yet: the policy's pause, or the operator's `stop` */
bool wants_dma, offers, asked; /* asked: for the one offer that an honest driver makes */
byte generation;
byte consumed;
byte given_to[REQUESTS]; /* ghost: generation whose ring has the request; 0: none */
byte command[REQUESTS];  /* the device's work: the tag, or NONE */
byte done_tag[REQUESTS];
byte crashes, lies;
bool offered; /* this generation has */
bool lied; /* ghost: this generation has; then what it says later may be wrong as well */
bool late[TAGS]; /* CLEAR_TOO_LATE: tags to be cleared */

/* hv/relay/inflight.c */
inline log_remove(tag)
{
    atomic {
        in_flight[tag] = false;
        request[tag] = 0;
        if
        :: order[0] == tag -> order[0] = order[1]
        :: else
        fi;
        logged--;
        order[logged] = NONE;
    }
}

/* hv/relay/grant.c: table first, then what the device may remember. */
inline revoke(page)
{
    table[page] = false;
    if
    :: MUTANT == NO_FLUSH
    :: else -> cached[page] = false
    fi
}

inline ring_write(tag)
{
    atomic {
        ring[produced % TAGS] = tag;
        ring_page[produced % TAGS] = request[tag];
        given_to[request[tag]] = generation;
    }
}

/* hv/relay/forward.c: copy, grant, log; then ring_write() shows it to the driver. */
inline forward()
{
    byte tag;
    do
    :: atomic { taken < submitted && logged < TAGS && !resetting && produced - consumed < TAGS ->
        tag = (in_flight[0] -> 1 : 0);
        table[taken] = true;
        in_flight[tag] = true;
        granted[tag] = true;
        request[tag] = taken;
        order[logged] = tag;
        logged++;
        taken++;
        ring_write(tag) }
        produced++
    :: else -> break
    od;
    tag = 0
}

/* What was filled becomes visible: hv/relay/complete.c, relay_publish(). */
inline publish()
{
    byte i;
    atomic {
        i = 0;
        do
        :: i < fills ->
            published[filled[i]]++;
            assert(published[filled[i]] == 1); /* once */
            assert(!withdrawn[filled[i]]);
            i++
        :: else -> break
        od;
        fills = 0;
        i = 0
    }
}

/* Strict grants: pages of requests that are no longer in flight are out of reach before anything is shown. */
inline settle()
{
    byte page;
    page = 0;
    do
    :: atomic { page < REQUESTS ->
        if
        :: table[page] && !(in_flight[0] && request[0] == page) && !(in_flight[1] && request[1] == page) -> revoke(page)
        :: else
        fi;
        page++ }
    :: else -> break
    od;
    page = 0
}

inline report()
{
    open = false;
    crashed = true
}

/* hv/relay/virtio_pci.c, device_finish_reset(): not before nothing is in flight; what is withdrawn needs no driver any more. */
inline finish_reset()
{
    atomic {
        if
        :: resetting && !open && !(table[0] || table[1] || table[2]) && MUTANT != WAIT_FOR_STOPPED ->
            in_flight[0] = false; in_flight[1] = false;
            request[0] = 0; request[1] = 0;
            order[0] = NONE; order[1] = NONE;
            logged = 0
        :: else
        fi
    }
    if
    :: resetting && logged == 0 ->
        settle();
        atomic {
            resetting = false;
            returned[0] = withdrawn[0];
            returned[1] = withdrawn[1];
            returned[2] = withdrawn[2]
        }
    :: else
    fi
}

/* hv/relay/complete.c: each entry is copied once, held against the log. */
inline complete()
{
    byte claim, by, page_of;
    do
    :: atomic { open && completed != entries ->
        claim = entry[completed % ENTRIES];
        by = entry_generation[completed % ENTRIES];
        page_of = entry_page[completed % ENTRIES];
        entry[completed % ENTRIES] = 0; /* as good as not there: fewer states */
        entry_generation[completed % ENTRIES] = 0;
        entry_page[completed % ENTRIES] = 0;
        if
        :: claim < TAGS && (in_flight[claim] || MUTANT == BELIEVE_ANY_TAG) ->
            if
            :: !withdrawn[request[claim]] ->
                assert(by == generation && given_to[request[claim]] == generation && table[request[claim]]); /* in order */
                assert(page_of == NONE || page_of == request[claim]);
                filled[fills] = request[claim];
                fills++
            :: else
            fi;
            granted[claim] = false;
            given_to[request[claim]] = 0;
            if
            :: in_flight[claim] && MUTANT != CLEAR_TOO_LATE -> log_remove(claim)
            :: in_flight[claim] && MUTANT == CLEAR_TOO_LATE -> late[claim] = true
            :: else
            fi;
            completed++
        :: else -> report()
        fi;
        claim = 0;
        by = 0;
        page_of = 0 }
    :: else -> break
    od;
    if
    :: MUTANT == CLEAR_BEFORE_PUBLISH
    :: else ->
        settle();
        publish()
    fi;
    finish_reset()
}

inline revoke_all()
{
    byte every;
    every = 0;
    do
    :: every < REQUESTS -> atomic { table[every] = false; every++ }
    :: else -> break
    od;
    atomic { /* one invalidation for all of it */
        if
        :: MUTANT == REVOKE_BEFORE_BLOCK
        :: else -> cached[0] = false; cached[1] = false; cached[2] = false
        fi;
        granted[0] = false;
        granted[1] = false;
        every = 0
    }
}

/* hv/recovery: quiesce. What follows may be a while off. */
inline quiesce()
{
    if
    :: MUTANT == REVOKE_BEFORE_BLOCK -> revoke_all()
    :: else
    fi;
    up = false;
    open = false;
    if
    :: MUTANT == KEEP_OWNER
    :: else -> owner = false
    fi;
    revoke_all();
    finish_reset();
    paused = true
}

/* hv/recovery: reset, restart. The image may be another. */
inline restart()
{
    /* A device without a reset of its own keeps what it was doing. */
    if
    :: atomic { command[0] = NONE; command[1] = NONE; command[2] = NONE; done_tag[0] = NONE; done_tag[1] = NONE; done_tag[2] = NONE }
    :: skip
    fi;
    atomic { /* relay_reset_rings(): nobody else runs that could see it half done */
        produced = 0;
        consumed = 0;
        if
        :: MUTANT == KEEP_COMPLETIONS
        :: else ->
            completed = 0;
            entries = 0;
            entry[0] = 0; entry[1] = 0; entry[2] = 0; entry[3] = 0;
            entry_page[0] = 0; entry_page[1] = 0; entry_page[2] = 0; entry_page[3] = 0;
            entry_generation[0] = 0; entry_generation[1] = 0; entry_generation[2] = 0; entry_generation[3] = 0
        fi;
        ring[0] = 0; ring[1] = 0; ring_page[0] = 0; ring_page[1] = 0;
        fills = 0;
        generation++;
        lied = false;
        late[0] = false; late[1] = false;
        offered = false;
        wants_dma = false;
        offers = false;
        asked = false;
        paused = false;
        crashed = false
    }
    up = true
}

/* hv/recovery/replay.c, hv/relay/forward.c relay_replay(): all that is in flight, oldest first, into empty rings. */
inline offer()
{
    byte at;
    at = 0;
    do
    :: at < logged ->
        atomic {
            table[request[order[at]]] = true;
            granted[order[at]] = true;
            ring_write(order[at])
        }
        produced++;
        at++
    :: else -> break
    od;
    at = 0;
    offered = true;
    open = true
}

proctype hypervisor()
{
end:
    do
    /* Sections: what is due is done in any order. A crashed driver is seen by a detector. */
    :: crashed && !paused -> quiesce()
    :: paused -> restart()
    :: !crashed && offers -> offers = false;
        if
        :: !offered -> offer()
        :: else -> report()
        fi
    :: atomic { !crashed && wants_dma && !owner ->
        assert((!cached[0] || table[0]) && (!cached[1] || table[1]) && (!cached[2] || table[2])); /* no late DMA */
        owner_generation = generation;
        owner = true }
    :: !crashed && open && taken < submitted && logged < TAGS && !resetting && produced - consumed < TAGS -> forward()
    :: !crashed && open && completed != entries -> complete()
    :: MUTANT == CLEAR_BEFORE_PUBLISH && fills > 0 -> settle(); publish()
    :: MUTANT == CLEAR_TOO_LATE && !crashed && late[0] -> log_remove(0); late[0] = false
    :: MUTANT == CLEAR_TOO_LATE && !crashed && late[1] -> log_remove(1); late[1] = false
    :: resets > 0 && submitted > 0 && !resetting -> /* the guest writes 0 to device_status */
        resets--;
        resetting = true;
        atomic {
            if :: submitted > 0 && published[0] == 0 -> withdrawn[0] = true :: else fi;
            if :: submitted > 1 && published[1] == 0 -> withdrawn[1] = true :: else fi;
            if :: submitted > 2 && published[2] == 0 -> withdrawn[2] = true :: else fi;
            taken = submitted
        }
        if
        :: MUTANT == FREE_TAG_AT_RESET ->
            atomic { in_flight[0] = false; in_flight[1] = false; order[0] = NONE; order[1] = NONE; logged = 0 }
        :: else
        fi;
        finish_reset();
        assert(!paused || !resetting) /* a driver that is stopped holds up no reset */
    od
}

/* As many requests as there are, in its own time; a device that is being reset gets none. */
proctype guest()
{
    do
    :: submitted < REQUESTS -> atomic { !resetting -> submitted++ }
    :: else -> break
    od
}

/*
 * The driver: takes requests, gives them to the device, says what is done. Up to LIES times it says something that is not
 * so, or offers again; up to CRASHES times it dies. Each step needs `up`: a stopped vCPU executes nothing.
 */
proctype driver()
{
    byte page;
end:
    do
    :: atomic { up && !crashed && !asked && owner -> asked = true; offers = true }
    :: atomic { up && !crashed && !owner && !wants_dma -> /* first of all it resets its device, or says so only */
        if
        :: command[0] = NONE; command[1] = NONE; command[2] = NONE; done_tag[0] = NONE; done_tag[1] = NONE; done_tag[2] = NONE
        :: lies > 0 -> lies--; lied = true
        fi;
        wants_dma = true }
    :: atomic { up && !crashed && consumed != produced ->
        page = ring_page[consumed % TAGS];
        command[page] = ring[consumed % TAGS];
        ring[consumed % TAGS] = 0;
        ring_page[consumed % TAGS] = 0;
        consumed++;
        page = 0 }
    :: atomic { up && !crashed && offered && (done_tag[0] != NONE || done_tag[1] != NONE || done_tag[2] != NONE) ->
        page = (done_tag[0] != NONE -> 0 : (done_tag[1] != NONE -> 1 : 2));
        entry[entries % ENTRIES] = done_tag[page];
        entry_generation[entries % ENTRIES] = generation;
        entry_page[entries % ENTRIES] = (lied -> NONE : page);
        done_tag[page] = NONE;
        page = 0;
        entries++ }
    :: atomic { up && !crashed && offered && lies > 0 -> lies--; lied = true;
        if
        :: entry[entries % ENTRIES] = 0; entry_generation[entries % ENTRIES] = generation; entry_page[entries % ENTRIES] = NONE; entries++
        :: entry[entries % ENTRIES] = 1; entry_generation[entries % ENTRIES] = generation; entry_page[entries % ENTRIES] = NONE; entries++
        :: offers = true
        fi }
    :: atomic { up && !crashed && crashes > 0 -> crashes--; crashed = true }
    od
}

/*
 * The device: translates, perhaps long before it writes; writes; says so. Without an owner nothing gets out. A command that
 * the IOMMU refuses ends all the same.
 */
proctype device(byte page)
{
end:
    do
    :: atomic { command[page] != NONE && owner && table[page] && !cached[page] -> cached[page] = true }
    :: atomic { command[page] != NONE && up ->
        if
        :: owner && (table[page] || cached[page]) ->
            assert(published[page] == 0); /* no late DMA */
            assert(!returned[page]);
            assert(owner_generation == generation);
            done_tag[page] = command[page]
        :: !owner || !(table[page] || cached[page])
        fi;
        command[page] = NONE }
    :: atomic { command[page] != NONE && !up -> /* its driver is stopped: it may write until it is blocked */
        if
        :: owner && (table[page] || cached[page]) -> assert(published[page] == 0); assert(!returned[page])
        :: else
        fi;
        command[page] = NONE }
    od
}

/* Nothing can happen any more. */
proctype monitor()
{
    byte i;
    timeout ->
        do
        :: i < REQUESTS -> assert(published[i] == 1 || withdrawn[i]); /* not lost */ i++
        :: else -> break
        od
}

init {
    atomic {
        byte i;
        do
        :: i < REQUESTS -> command[i] = NONE; done_tag[i] = NONE; i++
        :: else -> break
        od;
        order[0] = NONE;
        order[1] = NONE;
        generation = 1;
        up = true;
        /* With fewer, too: what holds after two crashes must hold when there was one. */
        select(crashes : 0 .. CRASHES);
        select(lies : 0 .. LIES);
        select(resets : 0 .. RESETS);
        i = 0;
        run guest();
        run hypervisor();
        run driver();
        run device(0);
        run device(1);
        run device(2);
        run monitor()
    }
}
