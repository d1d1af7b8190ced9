/*
 * Work that goes on while a command waits or the prompt stands: the network answers then. It runs in the one thread, at
 * the places where that is about to sleep, never inside itself.
 */
#pragma once

void background_set(void (*work)(void));

/* Run it, unless it is running already: what it does may wait for a device itself. */
void background_run(void);
