/* The proofs of shared/lib/elf.c. Included before the source by test_proof.py. */
#pragma once

#include "tests/proof/builtins.h"

#include "shared/lib/string.h"

/*@ requires \valid_read((u8 *)a + (0 .. n - 1)) && \valid_read((u8 *)b + (0 .. n - 1));
    assigns \result \from ((u8 *)a)[0 .. n - 1], ((u8 *)b)[0 .. n - 1]; */
int memcmp(const void *a, const void *b, size_t n);

/* Assumed of memcpy(). */
/*@ requires \valid((u8 *)to + (0 .. n - 1)) && \valid_read((u8 *)from + (0 .. n - 1));
    assigns ((u8 *)to)[0 .. n - 1] \from ((u8 *)from)[0 .. n - 1]; */
void proof_copy(void *to, const void *from, size_t n);
#define memcpy(to, from, n) proof_copy(to, from, n)
