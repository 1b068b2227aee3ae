/* TestU01's batteries on the hashed generator (stein_jax/randomness.py), in C.

   apt-get install libtestu01-0-dev    (Debian's non-free)
   gcc -O3 tests/testu01.c -o testu01 -ltestu01 -ltestu01probdist -ltestu01mylib -lm
   ./testu01 interleaved crush         (half an hour; small: 10 s; a number: that
                                      test of Crush, ten times; words: no test;
                                      cells: all 2^32 words of the first
                                      keys, counted in 2^16 cells)

   The streams:
     long         2^32 words of fold_in(key(0), 0), then those of 1, ...
     interleaved  one word of each of 4,096 fold_in keys, then the next of each
     seeds        one word of each of key(0), ..., key(4095), then the next of each
     fresh        the first word of key(0), of key(1), ...
     first        the same where the seeds are the first word of a key
     short        128 words of each fold_in key
     step         one stream whose step is the third argument: 1, 0x10001, ...
   A name with '-reversed' has the bits of its words from low to high. */

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "testu01/bbattery.h"
#include "testu01/swrite.h"
#include "testu01/unif01.h"

#define NUM_KEYS 4096

typedef struct { uint32_t start, middle, step; } Key;

static inline uint32_t mixed(uint32_t word) {
  word = (word ^ (word >> 16)) * 0x21F0AAADu;
  word = (word ^ (word >> 15)) * 0x735A2D97u;
  return word ^ (word >> 15);
}

static Key expanded(uint32_t first, uint32_t second) {
  Key key;
  key.start = first ^ mixed(second + 0x9E3779B1u);
  key.middle = second ^ mixed(key.start);
  key.step = mixed(key.start + key.middle) | 1;
  return key;
}

static inline uint32_t hashed(uint32_t counter, Key key) {
  uint32_t place = counter * key.step + key.start;
  return mixed(mixed(place) + key.middle) + place;
}

/* jax.random.fold_in(jax.random.key(0), i): threefry of twenty rounds. */
static Key fold_in(uint32_t i) {
  static const int turns[2][4] = {{13, 15, 26, 6}, {17, 29, 16, 24}};
  static const uint32_t keys[3] = {0, 0, 0x1BD11BDA};
  uint32_t a = 0, b = i;
  for (int round = 0; round < 5; round++) {
    for (int j = 0; j < 4; j++) {
      int turn = turns[round & 1][j];
      a += b;
      b = ((b << turn) | (b >> (32 - turn))) ^ a;
    }
    a += keys[(round + 1) % 3];
    b += keys[(round + 2) % 3] + round + 1;
  }
  return expanded(a, b);
}

static const char *stream;
static int reversed;
static uint32_t counter, place;
static Key key, keys[NUM_KEYS];

static int is(const char *name) {
  return !strncmp(stream, name, strlen(name));
}

static uint32_t from_long(void) {
  if (counter == 0) key = fold_in(place++);
  return hashed(counter++, key);
}

static uint32_t from_short(void) {
  if (counter % 128 == 0) key = fold_in(place++), counter = 0;
  return hashed(counter++, key);
}

static uint32_t from_keys(void) {
  uint32_t word = hashed(counter, keys[place++]);
  if (place == NUM_KEYS) place = 0, counter++;
  return word;
}

static uint32_t from_fresh(void) { return hashed(0, expanded(0, place++)); }

static uint32_t from_first(void) { return hashed(0, expanded(place++, 7)); }

static uint32_t from_step(void) { return hashed(counter++, key); }

static uint32_t (*plain)(void);

static unsigned int next(void) {
  uint32_t word = plain(), turned = 0;
  if (!reversed) return word;
  for (int bit = 0; bit < 32; bit++) turned |= (word >> bit & 1) << (31 - bit);
  return turned;
}

/* Standard scores of chi-squared: of the top, the lowest and the middle 16 bits. */
static int cells(void) {
  static uint32_t counts[3][65536];
  for (int i = 0; i < 4; i++) {
    memset(counts, 0, sizeof counts);
    for (uint64_t j = 0; j < 1ull << 32; j++) {
      uint32_t word = hashed(j, keys[i]);
      counts[0][word >> 16]++, counts[1][word & 65535]++;
      counts[2][word >> 8 & 65535]++;
    }
    for (int part = 0; part < 3; part++) {
      double total = 0;
      for (int cell = 0; cell < 65536; cell++) {
        double error = counts[part][cell] - 65536.0;
        total += error * error / 65536;
      }
      printf("%.1f ", (total - 65535) / sqrt(2 * 65535));
    }
    printf("\n");
  }
  return 0;
}

int main(int argc, char **argv) {
  if (argc < 3) return fprintf(stderr, "testu01 STREAM small|crush|words\n"), 2;
  stream = argv[1];
  reversed = strstr(stream, "-reversed") != NULL;
  for (uint32_t i = 0; i < NUM_KEYS; i++)
    keys[i] = is("seeds") ? expanded(0, i) : fold_in(i);
  key = (Key){0x12345678, 0x9ABCDEF0, argc > 3 ? strtoul(argv[3], 0, 0) : 1};
  plain = is("long") ? from_long : is("short") ? from_short
        : is("fresh") ? from_fresh : is("first") ? from_first
        : is("step") ? from_step : from_keys;
  if (!strcmp(argv[2], "words")) {
    for (int i = 0; i < 8; i++) printf("%u\n", next());
    return 0;
  }
  if (!strcmp(argv[2], "cells")) return cells();
  swrite_Basic = FALSE;
  unif01_Gen *generator = unif01_CreateExternGenBits(argv[1], next);
  int repeats[145] = {0};
  if (!strcmp(argv[2], "small")) bbattery_SmallCrush(generator);
  else if (!strcmp(argv[2], "crush")) bbattery_Crush(generator);
  else repeats[atoi(argv[2])] = 10, bbattery_RepeatCrush(generator, repeats);
  return 0;
}
