// SPDX-License-Identifier: Apache-2.0
//
// The protocol of sync/barrier.cc, with a kill at any step, one party whose time
// may be over at any moment, and one abort() or reset() at any moment. Checked:
// whoever returns says of its round what really became of it, however late it
// is; an index is given once; nobody is left waiting.
//
//   spin -a -DPARTIES=2 -DDEATHS=1 barrier.pml
//   gcc -O2 -DSAFETY -DCOLLAPSE -o pan pan.c && ./pan -m200000
//
// Without deaths a sleeper sleeps until it is woken. With deaths its slice ends
// when nothing else can move. Whoever sleeps then sleeps in an open round in
// which nobody has died, and rightly: the others have gone. The round numbers and the count of calm rounds are small
// enough to run over. docs/design/barrier.md says which of the faults at FAULT
// pan has found, and with how many threads.

#ifndef PARTIES
#define PARTIES 2
#endif
#ifndef THREADS
#define THREADS 3
#endif
#ifndef DEATHS
#define DEATHS 0
#endif
#ifndef ARRIVALS
#define ARRIVALS 2    // Of each thread.
#endif
#ifndef ENDERS
#define ENDERS 1      // An abort() and reset() by somebody else.
#endif
#ifndef IMPATIENT
#define IMPATIENT 1   // So many of the threads have a deadline.
#endif
#define SLOTS THREADS
#define CALM 2        // The count of calm rounds goes no further.
#define ROUNDS 12     // More than there can be.

#if THREADS > 2
#define NOBODY_ASLEEP (!asleep[1] && !asleep[2] && !asleep[3])
#else
#define NOBODY_ASLEEP (!asleep[1] && !asleep[2])
#endif

#define OPEN 0
#define BROKE 1       // Why is left out.
#define THROUGH 2

// The state, changed as a whole.
byte round;
bool sleepers;
byte arrived;
bool broken;
byte calm;
// What a compare-exchange compares with the loaded state.
#define UNCHANGED (round == s_round && sleepers == s_sleepers && \
                   arrived == s_arrived && broken == s_broken && calm == s_calm)

// The slots: owner 1 to THREADS, or the mark of a dead one.
byte owner[SLOTS];
bool mark[SLOTS];
byte of_round[SLOTS];
byte told[SLOTS];

bool asleep[THREADS + 1];
byte in_round[THREADS + 1];   // Of those asleep.
bool killed[THREADS + 2];
byte deaths;
byte living = THREADS;

// What really happened.
byte ended[ROUNDS];
byte given[ROUNDS];   // The indices, as bits.

// What the state tells of round `r`.
inline end_of(s_round, s_calm, r, end) {
  if
  :: r >= s_round -> end = OPEN
  :: r < s_round && s_round - r <= s_calm -> end = THROUGH
  :: r < s_round && s_round - r == s_calm + 1 -> end = BROKE
  :: else -> end = OPEN
  fi
}

// Loads the state into the caller's variables.
inline look() {
  atomic {
    s_round = round; s_sleepers = sleepers; s_arrived = arrived;
    s_broken = broken; s_calm = calm
  }
}

inline wake_all() {
  d_step {
    asleep[1] = 0; asleep[2] = 0;
#if THREADS > 2
    asleep[3] = 0
#endif
  }
}

// Tells those who are late, frees the marks of old rounds; `dead` is set if
// somebody died in the round of the loaded state. A step to read, one to write.
inline settle() {
  dead = 0;
  i = 0;
  do
  :: i < SLOTS ->
     atomic { v_owner = owner[i]; v_mark = mark[i]; v_round = of_round[i];
              v_told = told[i] };
     if
     :: v_owner == 0 && !v_mark -> i++
     :: (v_owner != 0 || v_mark) && v_round == s_round ->
        dead = dead || v_mark;
        i++
     :: (v_owner != 0 || v_mark) && v_round > s_round -> i++
     :: (v_owner != 0 || v_mark) && v_round < s_round ->
        if
        :: v_mark ->
           atomic {
             if
             :: owner[i] == 0 && mark[i] && of_round[i] == v_round ->
                mark[i] = 0; of_round[i] = 0; told[i] = 0; i++
             :: else
             fi
           }
        :: !v_mark && v_told != OPEN -> i++
        :: !v_mark && v_told == OPEN ->
           end_of(s_round, s_calm, v_round, end);
           if
           :: end == OPEN -> i++
           :: else ->
              atomic {
                if
#ifdef FAULT_TELL_BLINDLY
                :: owner[i] != 0 -> told[i] = end; i++
#else
                :: owner[i] == v_owner && of_round[i] == v_round &&
                   told[i] == OPEN && !mark[i] -> told[i] = end; i++
#endif
                :: else
                fi
              }
           fi
        fi
     fi
  :: else -> break
  od;
  i = 0; v_owner = 0; v_mark = 0; v_round = 0; v_told = 0; end = OPEN
}

// Settles where there is a mark at all. All slots at one look: who misses one
// looks again before the next sleep.
inline look_for_the_dead() {
  atomic {
    dead = mark[0] || mark[1];
#if SLOTS > 2
    dead = dead || mark[2]
#endif
  };
  if :: dead -> settle() :: else fi
}

// Tries to end the round of the loaded state; `done` says whether. The loaded
// state is as it is then.
inline end_round(how, closes) {
  if
  :: how == BROKE ->
#ifndef FAULT_TELL_NOBODY
     settle()
#else
     skip
#endif
  :: how == THROUGH && s_calm == CALM ->
#ifndef FAULT_CALM_RUNS_OVER
     settle()
#else
     skip
#endif
  :: else
  fi;
  atomic {
    if
    :: UNCHANGED ->
       assert(round < ROUNDS - 1);
       ended[round] = how;
       was_sleepers = sleepers;
       round++; sleepers = 0; arrived = 0;
       if
       :: how == BROKE -> calm = 0; broken = closes
       :: how == THROUGH && calm == CALM -> calm = 1
       :: else -> calm++
       fi;
       done = 1
    :: else -> done = 0; was_sleepers = 0
    fi;
    s_round = round; s_sleepers = sleepers; s_arrived = arrived;
    s_broken = broken; s_calm = calm
  };
  if
  :: was_sleepers ->
#ifndef FAULT_NO_WAKE
     wake_all();
#endif
     was_sleepers = 0
  :: else
  fi
}

proctype Thread(byte me) {
  byte s_round, s_arrived, s_calm;
  bool s_sleepers, s_broken;
  byte v_owner, v_round, v_told, i, end;
  bool v_mark, dead, done, was_sleepers;
  byte left = ARRIVALS;
  byte slot = SLOTS;   // None.
  byte index, mine;
  bool over;
  {
    skip;
again:
    atomic {
      s_round = 0; s_sleepers = 0; s_arrived = 0; s_broken = 0; s_calm = 0;
      dead = 0; done = 0; index = 0; mine = 0; over = 0
    };
    if :: left == 0 -> goto leave :: else -> left-- fi;
    look();
arrive:
    if
    :: s_broken -> goto free                       // Refused.
    :: else
    fi;
    if
    :: s_arrived + 1 < PARTIES ->
       if
       :: slot == SLOTS ->
          // A free slot, for the round of the loaded state.
          atomic {
            if
            :: owner[0] == 0 && !mark[0] -> slot = 0
            :: else ->
               if
               :: owner[1] == 0 && !mark[1] -> slot = 1
               :: else ->
#if THREADS > 2
                  if
                  :: owner[2] == 0 && !mark[2] -> slot = 2
                  :: else
                  fi
#else
                  skip
#endif
               fi
            fi;
            if
            :: slot < SLOTS ->
               owner[slot] = me; of_round[slot] = s_round; told[slot] = OPEN
            :: else
            fi
          };
          if :: slot == SLOTS -> goto wait :: else fi
       :: slot < SLOTS && of_round[slot] != s_round ->
          atomic { of_round[slot] = s_round; told[slot] = OPEN }
       :: else
       fi;
       atomic {
         if
         :: UNCHANGED ->
            index = arrived; mine = round; arrived++
         :: else ->
            s_round = round; s_sleepers = sleepers; s_arrived = arrived;
            s_broken = broken; s_calm = calm;
            goto arrive
         fi
       };
       goto await
    :: else
    fi;
    // The last.
    if
    :: slot < SLOTS ->
       atomic { owner[slot] = 0; of_round[slot] = 0; told[slot] = OPEN;
                slot = SLOTS }
    :: else
    fi;
    look_for_the_dead();
    if :: dead -> end_round(BROKE, 1); goto arrive :: else fi;
#ifdef FAULT_COUNT_THEN_TRIP
    atomic {
      if
      :: UNCHANGED ->
         arrived++; s_arrived++
      :: else ->
         s_round = round; s_sleepers = sleepers; s_arrived = arrived;
         s_broken = broken; s_calm = calm;
         goto arrive
      fi
    };
#endif
    mine = s_round;
    end_round(THROUGH, 0);
    if
    :: done ->
       atomic {
         assert((given[mine] & (1 << (PARTIES - 1))) == 0);
         given[mine] = given[mine] | (1 << (PARTIES - 1))
       };
       goto free
    :: else -> goto arrive
    fi;

await:
    look();
looked:
    // The slot after the state.
    end = told[slot];
    if
    :: end == OPEN && s_round != mine ->
#ifdef FAULT_BROKEN_BIT
       if :: s_broken -> end = BROKE :: else -> end = THROUGH fi
#else
       end_of(s_round, s_calm, mine, end)
#endif
    :: else
    fi;
    if
    :: end != OPEN || s_round != mine ->
       // Late or not, and whatever came since.
       atomic {
         assert(end == ended[mine]);
         if
         :: end == THROUGH ->
            assert((given[mine] & (1 << index)) == 0);
            given[mine] = given[mine] | (1 << index)
         :: else
         fi;
         end = OPEN
       };
       goto free
    :: else
    fi;
    look_for_the_dead();
    if :: dead -> end_round(BROKE, 1); goto looked :: else fi;
    if
    :: over ->
       end_round(BROKE, 1);
       if
       :: done -> goto free
       :: else -> goto looked
       fi
    :: else
    fi;
    goto sleep;

wait:
    // No slot is free: as in the code, for a slice.
    look_for_the_dead();
    if :: dead -> end_round(BROKE, 1) :: else -> look() fi;
    goto arrive;

sleep:
    atomic {
      if
      :: UNCHANGED && !sleepers ->
#ifndef FAULT_NO_MARK_OF_SLEEPERS
         sleepers = 1;
#endif
         asleep[me] = 1; in_round[me] = mine
      :: UNCHANGED && sleepers -> asleep[me] = 1; in_round[me] = mine
      :: else -> goto await
      fi
    };
    if
    :: !asleep[me]                                 // Woken.
    :: atomic { me <= IMPATIENT && asleep[me] -> asleep[me] = 0; over = 1 }
    fi;
    goto await;

free:
    if
    :: slot < SLOTS ->
       atomic { owner[slot] = 0; of_round[slot] = 0; told[slot] = OPEN;
                slot = SLOTS }
    :: else
    fi;
    goto again
  } unless { killed[me] };

  // What the kernel does for the slot that is pending.
  atomic {
    asleep[me] = 0;
    if
#ifndef FAULT_NO_PENDING
    :: slot < SLOTS && owner[slot] == me -> owner[slot] = 0; mark[slot] = 1
#endif
    :: else
    fi
  };
leave:
  living--
}

// abort(), then reset(); or reset() alone.
proctype Ender() {
  byte s_round, s_arrived, s_calm;
  bool s_sleepers, s_broken;
  byte v_owner, v_round, v_told, i, end;
  bool v_mark, dead, done, was_sleepers;
  {
    look();
    if
    :: 1 ->
       do
       :: s_broken -> break
       :: else -> end_round(BROKE, 1); if :: done -> break :: else fi
       od;
       look()
    :: 1
    fi;
    do
    :: s_broken ->
       atomic {
         if
         :: UNCHANGED -> broken = 0; done = 1
         :: else -> done = 0
         fi
       };
       if :: done -> break :: else -> look() fi
    :: !s_broken && s_arrived == 0 -> break
    :: !s_broken && s_arrived != 0 ->
       end_round(BROKE, 0);
       if :: done -> break :: else fi
    od
  } unless { killed[THREADS + 1] }
}

active proctype Killer() {
  byte s_round, s_arrived, s_calm;
  bool s_sleepers, s_broken;
  byte v_owner, v_round, v_told, i, end;
  bool v_mark, dead, done, was_sleepers;
  byte t;
  do
  :: deaths < DEATHS ->
     deaths++;
     if
     :: killed[1] = 1
     :: killed[2] = 1
#if THREADS > 2
     :: killed[3] = 1
#endif
#if ENDERS > 0
     :: killed[THREADS + 1] = 1
#endif
     fi
  :: break
  od;
#if DEATHS > 0
  timeout -> wake_all();
#endif
  // Nothing can move any more.
  timeout ->
  d_step {
    t = 1;
    do
    :: t <= THREADS ->
       assert(!asleep[t] || in_round[t] == round);
       i = i + asleep[t];
       t++
    :: else -> break
    od;
    // Nobody waits for one that is not there.
    assert(i == 0 || i == arrived);
    i = 0;
    t = 0;
    do
    :: t < SLOTS ->
       assert(!mark[t] || of_round[t] != round || NOBODY_ASLEEP);
       t++
    :: else -> break
    od;
    t = 0
  };
  // Let those go that rightly wait.
  look();
  do
  :: s_broken -> break
  :: else -> end_round(BROKE, 1); if :: done -> break :: else fi
  od;
  timeout -> assert(living == 0)
}

init {
  atomic {
    byte t = 1;
    do :: t <= THREADS -> run Thread(t); t++ :: else -> break od;
#if ENDERS > 0
    run Ender()
#endif
  }
}
