// SPDX-License-Identifier: Apache-2.0
//
// The protocol of sync/condition_variable.cc, with a kill at any step. Notifiers
// put items, each with one notification, and waiters take one each. While nobody
// has been killed no sleep ends by itself, so a wake-up that is lost is an error
// that no slice repairs, and so is one return too many; afterwards a slice ends
// when nothing else can move, and an item that is left while somebody waits is
// an error. Whoever finds the mutex poisoned notifies all.
//
//   spin -a -DWAITERS=2 -DNOTIFIERS=2 -DDEATHS=1 condition_variable.pml
//   gcc -O2 -DSAFETY -DCOLLAPSE -o pan pan.c && ./pan -m200000
//
// Each of the faults at FAULT must make pan find an error;
// docs/design/condition_variable.md says with how many of what.

#ifndef WAITERS
#define WAITERS 2
#endif
#ifndef NOTIFIERS
#define NOTIFIERS 2
#endif
#ifndef DEATHS
#define DEATHS 1
#endif
// So many, of an older group than all, were killed before it begins.
#ifndef GHOSTS
#define GHOSTS 0
#endif
// So many of the waiters have a deadline, which passes whenever it likes.
#ifndef IMPATIENT
#define IMPATIENT 1
#endif
// How many a notification is for.
#ifndef COUNT
#define COUNT 1
#endif

#define ALL (WAITERS + NOTIFIERS)
#define WAITING (old - credits + young)
#define AGE(begin) (epoch - begin)

// The word.
byte epoch = 1;
byte credits;
byte owed;
byte old = GHOSTS;
byte young;
bool sleepers;

byte holder;                // Of the mutex; 0 is free.
bool abandoned;             // The last holder died.
bool poisoned;
byte items;
bool asleep[ALL + 1];       // In the kernel's queue...
byte began[ALL + 1];        // ...with the bit of this epoch.
bool waits[ALL + 1];        // Registered and not returned.
bool slice_over[ALL + 1];
bool killed[ALL + 1];
byte deaths = GHOSTS;

// What has to come out.
byte due;                   // Notifications that no return has answered yet.
bool since[ALL + 1];        // One came since it began to wait.
byte untold;                // Items whose notifier died before it notified.

inline lock(me) { atomic { holder == 0 -> holder = me; abandoned = 0 } }
inline unlock() { holder = 0 }

inline switch_groups() { epoch++; old = young; young = 0; credits = 0 }
inline release() {
  epoch = epoch + 2; credits = 0; owed = 0; old = 0; young = 0; sleepers = 0
}

// FUTEX_WAKE_BITSET of one; which one is the kernel's choice.
#ifdef FAULT_NO_BITS
#define SAME(i, group) true
#else
#define SAME(i, group) (began[i] == group)
#endif
inline wake_one(group) {
  atomic {
    if
    :: asleep[1] && SAME(1, group) -> asleep[1] = 0
    :: asleep[2] && SAME(2, group) -> asleep[2] = 0
#if WAITERS > 2
    :: asleep[3] && SAME(3, group) -> asleep[3] = 0
#endif
#if WAITERS > 3
    :: asleep[4] && SAME(4, group) -> asleep[4] = 0
#endif
    :: else
    fi
  }
}
inline wake(group, many) {
  do
  :: many > 0 -> wake_one(group); many--
  :: else -> break
  od
}
inline wake_all() {
  atomic {
    asleep[1] = 0;
    asleep[2] = 0;
#if WAITERS > 2
    asleep[3] = 0;
#endif
#if WAITERS > 3
    asleep[4] = 0;
#endif
  }
}

inline repair() {
  if
  :: atomic { poisoned -> poisoned = 0; release() }; wake_all()
  :: else
  fi
}

// What others have been given and did not take.
#define FOR_OTHERS (owed > 0 || (AGE(begin) == 0 && credits > 0))
#define STANDING (1 + owed * 512 + epoch * 64 + credits * 8 + old)

proctype Waiter(byte me) {
  byte begin;
  byte seen_epoch;
  byte seen_credits;
  byte seen_rest;
  short standing;  // 0 where nothing stands.
  bool leaves;
  bool over;
  bool lifts;
  {
    lock(me);
look:
    repair();
    atomic {
      if
      :: items > 0 -> items--; goto taken
      :: items == 0 && over -> goto taken
      :: else
      fi;
      young++;
      begin = epoch;
      began[me] = epoch;
      waits[me] = 1;
      since[me] = 0;
      leaves = 0;
      standing = 0
    };
free:
    unlock();
block:
    atomic {
      if
      :: AGE(begin) > 1 || (AGE(begin) == 1 && credits > 0) -> goto decide
      :: else
      fi;
      seen_epoch = epoch;
      seen_credits = credits;
      seen_rest = old * 16 + young
    };
    if :: over -> leaves = 1; goto decide :: else fi;
    atomic {
      if
      :: epoch == seen_epoch && credits == seen_credits &&
         old * 16 + young == seen_rest -> sleepers = 1
      :: else -> goto block
      fi
    };
    atomic {
      if
      :: epoch == seen_epoch && credits == seen_credits && sleepers ->
         asleep[me] = 1
      :: else -> goto block
      fi
    };
end_asleep:
    if
    :: atomic { !asleep[me] && !slice_over[me] -> goto block }
    :: atomic { slice_over[me] -> asleep[me] = 0; slice_over[me] = 0 };
       if
       :: credits > 0 || owed > 0 || abandoned -> goto decide
       :: else -> goto block
       fi
    :: atomic { me <= IMPATIENT && asleep[me] -> asleep[me] = 0; over = 1;
                goto block }
    fi;
decide:
#ifdef FAULT_TAKE_UNLOCKED
    atomic {
      if
      :: AGE(begin) == 1 && credits > 0 ->
         credits--; old--; waits[me] = 0; due--
      :: else
      fi
    };
    if :: !waits[me] -> lock(me); goto look :: else fi;
#endif
    lock(me);
    atomic {
      leaves = leaves || poisoned;
      lifts = 0;
      if
      :: AGE(begin) > 1 ->
         if :: owed > 0 -> owed-- :: else fi;
         waits[me] = 0
      :: AGE(begin) <= 1 && FOR_OTHERS && standing == STANDING ->
         assert(deaths > 0);
#ifndef FAULT_NO_RESCUE
         lifts = 1;
         if
         :: owed > 0 ->
            release();
            waits[me] = 0;
            due = 0;
            goto decided
         :: else
         fi;
         // The young, who are at least this one, get what stood.
         if
         :: credits > young -> seen_credits = young
         :: else -> seen_credits = credits
         fi;
         switch_groups();
         credits = seen_credits - 1;
         old--;
         waits[me] = 0;
         due = 0;
         goto decided
#endif
      :: AGE(begin) <= 1 && !(FOR_OTHERS && standing == STANDING) ->
         standing = (FOR_OTHERS -> STANDING : 0);
         if
         :: AGE(begin) == 1 && credits > 0 ->
            credits--;
            old--;
            waits[me] = 0
         :: else
         fi
      fi;
      if
      :: !waits[me] ->
         assert(deaths > 0 || due > 0);
         assert(deaths > 0 || since[me]);
         if :: due > 0 -> due-- :: else fi
      :: waits[me] && leaves ->
#ifndef FAULT_LEAVER_STAYS_COUNTED
         if :: AGE(begin) == 0 -> young-- :: else -> old-- fi;
#endif
         waits[me] = 0
      :: else
      fi
    };
decided:
    if :: lifts -> wake_all() :: else fi;
    if :: waits[me] -> goto free :: else -> goto look fi;
taken:
    unlock();
    goto ended
  } unless { killed[me] };

  atomic {
    asleep[me] = 0;
    waits[me] = 0;
    slice_over[me] = 0;
    if :: holder == me -> holder = 0; abandoned = 1; poisoned = 1 :: else fi
  };
ended:
  skip
}

inline notify() {
  atomic {
    told = 1;
    wakes = sleepers;
    all = 0;
    for_old = 0;
    for_young = 0;
    seen_epoch = epoch;
    if
    :: WAITING == 0 -> wakes = 0
    :: WAITING > 0 ->
       since[1] = 1;
       since[2] = 1;
#if WAITERS > 2
       since[3] = 1;
#endif
#if WAITERS > 3
       since[4] = 1;
#endif
       if
       :: COUNT >= WAITING -> due = due + WAITING; release(); all = 1
       :: else ->
          due = due + COUNT;
          if
          :: COUNT <= old - credits -> for_old = COUNT; credits = credits + COUNT
          :: else ->
             for_old = old - credits;
             for_young = COUNT - for_old;
#ifndef FAULT_SWITCH_OWES_NOTHING
             owed = owed + old;
#endif
             switch_groups();
             credits = for_young
          fi
       fi
    fi
  };
#ifdef FAULT_NO_WAKE
  wakes = 0;
#endif
  if
  :: wakes && all -> wake_all()
  :: wakes && !all ->
#ifndef FAULT_OLD_NOT_WOKEN
     wake(seen_epoch - 1, for_old);
#endif
     wake(seen_epoch, for_young)
  :: else
  fi
}

// With the mutex, or just after.
proctype Notifier(byte me) {
  byte seen_epoch;
  byte for_old;
  byte for_young;
  bool wakes;
  bool all;
  bool put;
  bool told;
  {
    lock(me);
    repair();
    atomic { items = items + COUNT; put = 1 };
    if
    :: notify(); unlock()
    :: unlock(); notify()
    fi;
    goto ended
  } unless { killed[me] };
  atomic {
    if :: put && !told -> untold = untold + COUNT :: else fi;
    if :: holder == me -> holder = 0; abandoned = 1; poisoned = 1 :: else fi
  };
ended:
  skip
}

#define READY(i) (waits[i] && (AGE(began[i]) > 1 || credits > 0))

active proctype World() {
  byte i;
  byte slices;
  do
  :: deaths < DEATHS + GHOSTS ->
     deaths++;
     if
     :: killed[1] = 1
     :: killed[2] = 1
     :: killed[3] = 1
#if ALL > 3
     :: killed[4] = 1
#endif
#if ALL > 4
     :: killed[5] = 1
#endif
     fi
  :: break
  od;
  // Nothing can move any more. Who still waits sleeps.
  timeout ->
  if :: deaths == 0 -> assert(due == 0 && credits == 0) :: else fi;
  do
  :: deaths > 0 && slices < 4 ->
     slices++;
     atomic {
       i = 1;
       do
       :: i <= WAITERS -> slice_over[i] = asleep[i]; i++
       :: else -> break
       od
     };
     timeout
  :: else -> break
  od;
  atomic {
    i = 1;
    do
    :: i <= WAITERS -> assert(!READY(i) && (!waits[i] || items <= untold)); i++
    :: else -> break
    od
  }
}

init {
  atomic {
    byte i = 1;
    do
    :: i <= WAITERS -> run Waiter(i); i++
    :: i > WAITERS && i <= ALL -> run Notifier(i); i++
    :: else -> break
    od
  }
}
