// SPDX-License-Identifier: Apache-2.0
//
// A lock word that is freed by a plain store (sync/internal/lock_word.cc,
// WatchedWord): unlock, mark and wake-up, with a kill at any step. The store
// stays in its processor's buffer for as long as it likes, while the load after
// it is done; only a barrier, an atomic step or the kernel's own work at a death
// brings it out. Waiters sleep without slices here, so a state in which somebody
// sleeps for ever is an error that no slice repairs.
//
//   spin -a -DTHREADS=3 -DDEATHS=1 watched_word.pml
//   gcc -O2 -DSAFETY -DCOLLAPSE -o pan pan.c && ./pan -m400000
//
// Each of the faults at FAULT must make pan find an error; docs/design/mutex.md
// says with how many threads, rounds and deaths. lock_word.pml has the word that
// is freed by an atomic step, and the poison.

#ifndef THREADS
#define THREADS 3
#endif
#ifndef DEATHS
#define DEATHS 1
#endif

// Thread 1, and this one too, lock so often; the others once.
#ifndef ROUNDS
#define ROUNDS 2
#endif
#ifndef REPEATER
#define REPEATER 1
#endif

// So many of the threads have a deadline, which passes whenever it likes.
#ifndef IMPATIENT
#define IMPATIENT 1
#endif

// So many, the last ones, do not join the barriers and unlock by an atomic step.
#ifndef OUTSIDERS
#define OUTSIDERS 0
#endif

#define WAITERS 8
#define OWNER_DIED 16
#define HOLDER(word) (word & 7)

// The watch is 4 * generation + one of these.
#define UNWATCHED 0
#define ANNOUNCED 1
#define WATCHED 2
#define STATE(watch) (watch & 3)

byte word;                    // 0, or 1 to THREADS, and the two bits above.
byte watch;
bool buffered[THREADS + 1];   // Its store of 0 is not visible yet.
bool asleep[THREADS + 1];     // In the kernel's queue of the word.
bool killed[THREADS + 1];
byte deaths;
byte living = THREADS;
byte inside;                  // Threads in the critical section.

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

// The buffered store becomes visible; it knows nothing of marks.
inline drain(thread) {
  if
  :: buffered[thread] ->
     assert(HOLDER(word) == thread);
     buffered[thread] = 0;
     word = 0;
     inside--
  :: else
  fi
}

proctype Thread(byte me) {
  byte seen;
  byte watched;
  byte keep;       // WAITERS once it has slept.
  byte rounds;
  bool over;       // Its deadline has passed, which it notices after a sleep.
  bool woken;
  bool pending;
  {
    rounds = 0;
again:
    pending = 1;
    keep = 0;
look:
    // A compare-exchange that fails is tried again with what it saw, so reading
    // and taking are one step.
    atomic {
      seen = word;
      if
      :: HOLDER(seen) == 0 ->
         word = me | (seen & WAITERS) | keep;
         inside++;
         seen = 0;
         goto held
      :: else
      fi
    };
    if :: over && keep == 0 -> goto leave :: else fi;
    if
    :: seen & WAITERS -> goto marked
    :: else
    fi;
    // Mark().
    watched = watch;
    if
    :: STATE(watched) == UNWATCHED ->
       atomic {
         if
         :: watch == watched -> watch = watched + ANNOUNCED
         :: else -> goto look
         fi
       };
       watched = watched + ANNOUNCED
    :: else
    fi;
    if
    :: STATE(watched) == ANNOUNCED ->
#ifndef FAULT_NO_BARRIER
       atomic { drain(1) };
       atomic { drain(2) };
       atomic { drain(3) };
#if THREADS > 3
       atomic { drain(4) };
#endif
#endif
       atomic {
#ifdef FAULT_NO_GENERATION
         if
         :: STATE(watch) == ANNOUNCED -> watch = WATCHED
#else
         if
         :: watch == watched -> watch = watched - ANNOUNCED + WATCHED
#endif
         :: else -> goto look
         fi
       };
       watched = watched - ANNOUNCED + WATCHED
    :: else
    fi;
#ifdef FAULT_TWO_STEPS
    if :: watch != watched -> goto look :: else fi;
    atomic { if :: word == seen -> word = seen | WAITERS :: else -> goto look fi };
#else
    atomic {
      if
      :: word == seen && watch == watched -> word = seen | WAITERS
      :: else -> goto look
      fi
    };
#endif
    seen = seen | WAITERS;
marked:
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
    watched = watch;
    if
    :: word == me && STATE(watched) == UNWATCHED && me <= THREADS - OUTSIDERS ->
       buffered[me] = 1;
       if
       :: atomic { drain(me) }; woken = (watch == watched)
       :: woken = (watch == watched); atomic { drain(me) }
       fi;
#ifndef FAULT_NO_SECOND_LOOK
       if :: woken -> goto unlocked :: else fi
#else
       goto unlocked
#endif
    :: else ->
       atomic {
         seen = word;
         word = word & WAITERS;
         inside--
       };
#ifdef FAULT_WATCH_UNSEEN
       if :: !(seen & WAITERS) -> goto unlocked :: else fi
#else
       if
       :: !(seen & WAITERS) && STATE(watch) == UNWATCHED -> goto unlocked
       :: else
       fi
#endif
    fi;
    // WakeNext().
    wake(woken);
    if :: woken -> goto unlocked :: else fi;
    watched = watch;
    seen = (STATE(watched) == UNWATCHED -> watched : (watched - STATE(watched)) + 4);
#ifdef FAULT_NO_GENERATION
    seen = 0;
#endif
    atomic {
      if
      :: word == WAITERS && watch == watched -> word = 0; watch = seen; goto reset
      :: else
      fi
    };
    atomic {
      if
      :: word == 0 && watch == watched -> watch = seen
      :: else -> goto unlocked
      fi
    };
reset:
#ifndef FAULT_NO_SECOND_WAKE
    wake(woken);
#endif
unlocked:
    rounds++;
    pending = 0;
    if :: (me == 1 || me == REPEATER) && rounds < ROUNDS -> goto again :: else fi;
leave:
    pending = 0;
    goto ended
  } unless { killed[me] };

  // What the kernel does for a dead thread whose word is pending or listed.
  atomic {
    asleep[me] = 0;
    drain(me);
    if
    :: pending && HOLDER(word) == 0 -> wake(woken)
    :: pending && HOLDER(word) == me ->
       inside--;
       word = OWNER_DIED | (word & WAITERS);
       if :: word & WAITERS -> wake(woken) :: else fi
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
