// SPDX-License-Identifier: Apache-2.0
//
// The protocol of sync/internal/lock_word.cc and of the poison mark, with a kill
// at any step. Waiters sleep without slices here, so a state in which somebody
// sleeps for ever is an error that no slice repairs.
//
//   spin -a -DTHREADS=3 -DDEATHS=1 lock_word.pml
//   gcc -O2 -DSAFETY -DCOLLAPSE -o pan pan.c && ./pan -m200000
//
// Each of the faults at FAULT must make pan find an error; docs/design/mutex.md
// says with how many threads and deaths.

#ifndef THREADS
#define THREADS 3
#endif
#ifndef DEATHS
#define DEATHS 1
#endif

// So many of the threads have a deadline, which passes whenever it likes.
#ifndef IMPATIENT
#define IMPATIENT 1
#endif

#define WAITERS 8
#define OWNER_DIED 16
#define HOLDER(word) (word & 7)

byte word;                  // 0, or 1 to THREADS, and the two bits above.
bool asleep[THREADS + 1];   // In the kernel's queue of the word.
bool killed[THREADS + 1];
byte deaths;
byte living = THREADS;
byte inside;                // Threads in the critical section.
bool torn;                  // The guarded data is half-written.
bool poisoned;

// FUTEX_WAKE of one; which one is the kernel's choice.
inline wake(woken) {
  atomic {
    woken = 0;
    if
    :: asleep[1] -> asleep[1] = 0; woken = 1
    :: asleep[2] -> asleep[2] = 0; woken = 1
    :: asleep[3] -> asleep[3] = 0; woken = 1
#if THREADS > 3
    :: asleep[4] -> asleep[4] = 0; woken = 1
#endif
    :: else
    fi
  }
}

proctype Thread(byte me) {
  byte seen;
  byte keep;       // WAITERS once it has slept.
  bool over;       // Its deadline has passed, which it notices after a sleep.
  bool woken;
  bool pending;
  {
    pending = 1;
look:
    // A compare-exchange that fails is tried again with what it saw, so reading
    // and taking are one step.
    atomic {
      seen = word;
      if
      :: HOLDER(seen) == 0 ->
#ifdef FAULT_DROP_WAITERS
         word = me | keep;
#else
         word = me | (seen & WAITERS) | keep;
#endif
         inside++;
         goto held
      :: else
      fi
    };
    if :: over && keep == 0 -> goto leave :: else fi;
    atomic {
      if
      :: HOLDER(word) == 0 -> goto look
      :: else -> word = word | WAITERS; seen = word
      fi
    };
    if :: over -> goto leave :: else fi;
#ifndef FAULT_NO_KEEP
    keep = WAITERS;
#endif
    atomic { if :: word == seen -> asleep[me] = 1 :: else -> goto look fi };
    if
    :: !asleep[me]                                   // Woken.
    :: atomic { me <= IMPATIENT && asleep[me] -> asleep[me] = 0; over = 1 }
    fi;
    goto look;

held:
    assert(inside == 1);
#ifndef FAULT_NO_POISON
    if :: seen & OWNER_DIED -> poisoned = 1 :: else fi;
#endif
    assert(!torn || poisoned);
    torn = 1;
    torn = 0;
    poisoned = 0;
    atomic {
      inside--;
      if :: word == me -> word = 0; goto unlocked :: else fi;
#ifdef FAULT_CLEAR_WAITERS
      word = 0
#else
      word = word & WAITERS
#endif
    };
    wake(woken);
    if
    :: woken
    :: else ->
       atomic { if :: word == WAITERS -> word = 0 :: else -> goto unlocked fi };
#ifndef FAULT_NO_SECOND_WAKE
       wake(woken)
#endif
    fi;
unlocked:
leave:
    pending = 0;
    goto ended
  } unless { killed[me] };

  // What the kernel does for a dead thread whose word is pending or listed.
  atomic {
    asleep[me] = 0;
    if
#ifndef FAULT_NO_PENDING
    :: pending && HOLDER(word) == 0 -> wake(woken)
    :: pending && HOLDER(word) == me ->
       inside--;
       word = OWNER_DIED | (word & WAITERS);
       if :: word & WAITERS -> wake(woken) :: else fi
#endif
    :: else
    fi
  };
ended:
  living--
}

active proctype Killer() {
  do
  :: deaths < DEATHS ->
     deaths++;
     if
     :: killed[1] = 1
     :: killed[2] = 1
     :: killed[3] = 1
#if THREADS > 3
     :: killed[4] = 1
#endif
     fi
  :: break
  od;
  // Nothing can move any more: then nobody may be left.
  timeout -> assert(living == 0)
}

init {
  atomic {
    byte i = 1;
    do :: i <= THREADS -> run Thread(i); i++ :: else -> break od
  }
}
