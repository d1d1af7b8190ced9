/*
 * Work that goes on while a command waits or the prompt stands: the network answers then, or an order to a driver VM
 * falls due. It runs in the one thread, at
 * the places where that is about to sleep, never inside itself.
 */
#pragma once

/* For good; adding it again changes nothing. At most four. */
void background_add(void (*work)(void));

/* Run it, unless it is running already: what it does may wait for a device itself. */
void background_run(void);
