/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#pragma once

/* What a compiler or a processor has and C has not. */

/* A hint to the processor that this thread is waiting in a loop. */
#if BG_PORTABLE
#define BG_CPU_RELAX() ((void) 0)
#elif defined(__x86_64__) || defined(__i386__)
#define BG_CPU_RELAX() __builtin_ia32_pause ()
#elif defined(__aarch64__)
#define BG_CPU_RELAX() __asm__ __volatile__("yield")
#else
#define BG_CPU_RELAX() ((void) 0)
#endif

/* Has the processor take what is about to be written out of another one's cache,
 * and go on meanwhile. */
#if defined(__x86_64__) && !BG_PORTABLE
#define BG_PREFETCH_TO_WRITE(address)                                                              \
  __asm__ __volatile__("prefetchw %0" : : "m"(*(const char *) (address)))
#elif defined(__GNUC__)
#define BG_PREFETCH_TO_WRITE(address) __builtin_prefetch ((address), 1)
#else
#define BG_PREFETCH_TO_WRITE(address) ((void) (address))
#endif

/* A variable of which each thread has one. With glibc it can be reached without a
 * call also from a library that is loaded later. */
#if defined(__GLIBC__) && defined(__GNUC__)
#define BG_THREAD_LOCAL _Thread_local __attribute__ ((tls_model ("initial-exec")))
#else
#define BG_THREAD_LOCAL _Thread_local
#endif
