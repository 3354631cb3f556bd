// SPDX-License-Identifier: Apache-2.0
//
// The protocol of sync/shared_mutex.cc with a kill at any step: the gate and
// its state, the readers' slots, the poison mark. Sleepers sleep without slices
// here, so a state in which somebody sleeps for ever is an error that no slice
// repairs. Threads 1 to READERS read, the others write.
//
//   spin -a -DREADERS=2 -DWRITERS=1 -DDEATHS=1 shared_mutex.pml
//   gcc -O2 -DSAFETY -DCOLLAPSE -o pan pan.c && ./pan -m200000
//
// The gate is taken, waited for and inherited in one step each: how a lock word
// does that is lock_word.pml's matter, and the porch decides only who comes
// first. A slot's word is here in full. Each of the faults at FAULT must make
// pan find an error; docs/design/shared_mutex.md says with how many threads.

#ifndef READERS
#define READERS 2
#endif
#ifndef WRITERS
#define WRITERS 1
#endif
#ifndef DEATHS
#define DEATHS 1
#endif
#ifndef SLOTS
#define SLOTS 2
#endif
#define THREADS (READERS + WRITERS)

// So many of the writers have a deadline, which passes whenever it likes while
// they wait for a reader.
#ifndef IMPATIENT
#define IMPATIENT 0
#endif

#define WAITERS 8
#define OWNER_DIED 16
#define HOLDER(word) (word & 7)

#define NO_READERS 0
#define READING 1
#define DRAINING 2
#define WRITING 3

byte gate;              // Its holder, or 0.
byte state;
bool poisoned;
byte slot[SLOTS];       // Lock words.
byte asleep[SLOTS];     // Who is in the kernel's queue of the slot: the holder
                        // of the gate, so one at most.
bool kept[THREADS + 1]; // Its processor has not yet made its store visible.
bool killed[THREADS + 1];
byte deaths;
byte living = THREADS;
byte reading;
byte writing;
bool torn;              // The guarded data is half-written.

// By the holder of slot `s`, which it has pending. Then it holds it no more.
inline free_slot(s) {
  atomic {
    seen = slot[s];
    slot[s] = slot[s] & WAITERS
  };
#ifndef FAULT_NO_WAKE
  if
  :: seen & WAITERS ->
     // FUTEX_WAKE, and the bit goes where nobody was there.
     atomic {
       woken = asleep[s] != 0;
       asleep[s] = 0
     };
     if
     :: woken
     :: else ->
        atomic { if :: slot[s] == WAITERS -> slot[s] = 0 :: else fi };
        asleep[s] = 0
     fi
  :: else
  fi;
#endif
  mine = SLOTS
}

// Returns when no processor keeps a store to itself.
inline barrier() {
  skip;
#ifndef FAULT_NO_BARRIER
  s = 1;
  do
  :: s <= READERS -> !kept[s]; s++
  :: s > READERS -> break
  od
#endif
}

// What whoever takes the gate does first.
inline recover() {
  if
  :: state == WRITING ->
#ifndef FAULT_NO_POISON
     poisoned = 1;
#endif
     state = READING
  :: state == DRAINING -> state = READING
  :: else
  fi
}

proctype Reader(byte me) {
  byte mine = SLOTS;  // The slot that is pending or linked.
  byte seen;
  byte s;
  bool woken;
  bool inside;
  {
    // Any slot may be the first choice.
    s = 0;
    do :: s < SLOTS - 1 -> s++ :: break od;
    atomic {
      mine = s;
      if
      :: HOLDER(slot[s]) == 0 -> slot[s] = me | (slot[s] & WAITERS)
      :: else -> goto through_gate
      fi
    };
#ifdef FAULT_LOOK_FIRST
    // As if the state had been read before the slot was marked.
    goto enter;
#endif
    if
    :: state == READING -> goto enter
    :: state != READING ->
       atomic {
         if
         :: state == NO_READERS -> state = READING; goto enter
         :: state == READING -> goto enter
         :: else
         fi
       }
    fi;
#ifdef FAULT_TRUST_MARK
    free_slot(s);
#else
    // Wakes whether the slot is marked or not.
    atomic { slot[s] = slot[s] & WAITERS };
    atomic {
      woken = asleep[s] != 0;
      asleep[s] = 0
    };
    if
    :: woken
    :: else ->
       atomic { if :: slot[s] == WAITERS -> slot[s] = 0 :: else fi };
       asleep[s] = 0
    fi;
    mine = SLOTS;
#endif

through_gate:
    atomic { gate == 0 -> gate = me; mine = SLOTS };
    recover();
wait_slot:
    atomic {
      s = 0;
      do
      :: s < SLOTS && HOLDER(slot[s]) != 0 -> s++
      :: else -> break
      od;
      if
      :: s < SLOTS -> mine = s; slot[s] = me | (slot[s] & WAITERS); goto got_slot
      :: else
      fi
    };
    state = DRAINING;
    barrier();
    // Of several slots it sleeps on one, and looks at the others in slices:
    // only the wait for this one is modelled.
    s = 0;
    atomic {
      if
      :: HOLDER(slot[s]) == 0 -> goto wait_slot
      :: else -> slot[s] = slot[s] | WAITERS; seen = slot[s]
      fi
    };
    atomic {
      if :: slot[s] == seen -> asleep[s] = me :: else -> goto wait_slot fi
    };
    asleep[s] != me;
    goto wait_slot;
got_slot:
    state = READING;
    gate = 0;

enter:
    atomic {
      inside = 1;
      reading++;
      assert(writing == 0);
      assert(!torn || poisoned)
    };
    atomic { reading--; inside = 0 };
    // Alone it leaves by a plain store, which its processor may keep to itself
    // until after the look at the state, or until a barrier.
    if
    :: slot[mine] == me && state == READING -> goto leave_plainly
    :: slot[mine] != me || state != READING
    fi;
    free_slot(mine);
    goto ended;
leave_plainly:
    kept[me] = 1;
    if
    :: atomic { slot[mine] = 0; kept[me] = 0 };
       seen = state
    :: seen = state;
       atomic { slot[mine] = 0; kept[me] = 0 }
    fi;
#ifndef FAULT_NO_LOOK
    if
    :: seen != READING -> asleep[mine] = 0          // FUTEX_WAKE.
    :: else
    fi;
#endif
    goto ended
  } unless { killed[me] };

  // What the kernel does for a dead thread.
  atomic {
    if :: inside -> reading-- :: else fi;
    if :: kept[me] -> slot[mine] = 0; kept[me] = 0 :: else fi;
    s = 0;
    do
    :: s < SLOTS ->
       if :: asleep[s] == me -> asleep[s] = 0 :: else fi;
       if
       :: HOLDER(slot[s]) == me ->
          seen = slot[s];
          slot[s] = OWNER_DIED | (seen & WAITERS);
          if :: seen & WAITERS -> asleep[s] = 0 :: else fi
       :: HOLDER(slot[s]) == 0 && mine == s -> asleep[s] = 0   // Pending.
       :: else
       fi;
       s++
    :: else -> break
    od;
    if :: gate == me -> gate = 0 :: else fi
  };
ended:
  living--
}

proctype Writer(byte me) {
  byte seen;
  byte s;
  bool over;
  bool inside;
  {
    atomic { gate == 0 -> gate = me };
    recover();
    atomic {
      seen = state;
      state = DRAINING
    };
    if :: seen == NO_READERS -> goto alone :: else fi;
    // In truth only where a slot is found taken.
    barrier();
    s = 0;
    do
    :: s < SLOTS ->
#ifndef FAULT_NO_DRAIN
look:
       if :: HOLDER(slot[s]) == 0 -> goto next :: HOLDER(slot[s]) != 0 fi;
       atomic {
         if
         :: HOLDER(slot[s]) == 0 -> goto next
         :: else ->
#ifndef FAULT_NO_MARK
            slot[s] = slot[s] | WAITERS;
#endif
            seen = slot[s]
         fi
       };
       atomic { if :: slot[s] == seen -> asleep[s] = me :: else -> goto look fi };
       if
       :: asleep[s] != me
       :: atomic {
            me <= READERS + IMPATIENT && asleep[s] == me -> asleep[s] = 0;
            over = 1
          }
       fi;
       if :: over && HOLDER(slot[s]) != 0 -> goto give_up :: else fi;
       goto look;
next:
#endif
       s++
    :: else -> break
    od;
alone:
#ifdef FAULT_WRITE_EARLY
    atomic { inside = 1; writing++; assert(writing == 1 && reading == 0) };
    torn = 1;
    state = WRITING;
#else
    state = WRITING;
    atomic { inside = 1; writing++; assert(writing == 1 && reading == 0) };
    assert(!torn || poisoned);
    torn = 1;
#endif
    torn = 0;
    poisoned = 0;
    atomic { writing--; inside = 0 };
#ifdef FAULT_FREE_FIRST
    gate = 0;
    state = NO_READERS;
    goto ended;
#endif
    state = NO_READERS;
    gate = 0;
    goto ended;
give_up:
#ifdef FAULT_GIVE_UP_EMPTY
    state = NO_READERS;
#else
    state = READING;
#endif
    gate = 0;
    goto ended
  } unless { killed[me] };

  atomic {
    if :: inside -> writing-- :: else fi;
    s = 0;
    do
    :: s < SLOTS ->
       if :: asleep[s] == me -> asleep[s] = 0 :: else fi;
       s++
    :: else -> break
    od;
    if :: gate == me -> gate = 0 :: else fi
  };
ended:
  living--
}

active proctype Killer() {
  byte who;
  do
  :: deaths < DEATHS ->
     deaths++;
     who = 1;
     do :: who < THREADS -> who++ :: break od;
     killed[who] = 1
  :: break
  od;
  // Nothing can move any more: then nobody may be left.
  timeout -> assert(living == 0)
}

init {
  atomic {
    byte i = 1;
    do
    :: i <= READERS -> run Reader(i); i++
    :: i > READERS && i <= THREADS -> run Writer(i); i++
    :: else -> break
    od
  }
}
