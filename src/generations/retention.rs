//! Which generations go. Pure: numbers, times and a configuration in, numbers out.
//!
//! The order of generations is that of their numbers. Times serve `keep.days` only, and are
//! not believed blindly: they come from the clocks of initrds, and one that lies may keep a
//! generation too long, never remove one too early.

use crate::config::Keep;

const DAY: u64 = 24 * 60 * 60;

/// No reset can have run before this, which is older than the first version: 2026-01-01 in
/// seconds since 1970. A clock without a battery says 1970, or when its firmware was built.
pub const EARLIEST: u64 = 1_767_225_600;

/// A generation, as far as retention is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dated {
    /// Its number.
    pub number: u64,
    /// When the reset ran that made it end, in seconds since 1970, as it was written down.
    pub ended: Option<u64>,
}

/// Why a generation goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// There are more than `keep.generations`.
    TooMany,
    /// It ended more than `keep.days` ago.
    TooOld,
}

/// A generation that goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expired {
    /// Its number.
    pub number: u64,
    /// Why; where both limits say so, that there are too many.
    pub reason: Reason,
}

/// The generations that `keep` no longer keeps, oldest first. Never the newest.
///
/// A generation goes when either limit says so. One with no believable age is not too old: its
/// time is missing, in the future of `now`, or before [`EARLIEST`]; or `now` is missing.
#[must_use]
pub fn expired(generations: &[Dated], keep: Keep, now: Option<u64>) -> Vec<Expired> {
    let mut sorted = generations.to_vec();
    sorted.sort_by_key(|generation| generation.number);
    let wanted = keep.generations.map(|limit| usize::try_from(limit).unwrap_or(usize::MAX).max(1));
    let too_many = wanted.map_or(0, |wanted| sorted.len().saturating_sub(wanted));
    let oldest_kept = keep.days.map(|days| u64::from(days) * DAY);
    let ages = ages(&sorted, now);
    let removable = sorted.len().saturating_sub(1);
    let judged = sorted.iter().zip(ages).take(removable).enumerate();
    judged
        .filter_map(|(index, (generation, age))| {
            let too_old = matches!((age, oldest_kept), (Some(age), Some(limit)) if age > limit);
            let reason = match () {
                () if index < too_many => Reason::TooMany,
                () if too_old => Reason::TooOld,
                () => return None,
            };
            Some(Expired { number: generation.number, reason })
        })
        .collect()
}

/// The believable ages in seconds of what is sorted by number.
///
/// A generation cannot have ended before an older one did. Where the times say so, one of them
/// lies, and the later time counts for both: it makes neither older than it is.
fn ages(sorted: &[Dated], now: Option<u64>) -> Vec<Option<u64>> {
    let Some(now) = now else { return vec![None; sorted.len()] };
    let mut latest = 0;
    let age = |dated: &Dated| {
        let ended = dated.ended.filter(|ended| (EARLIEST..=now).contains(ended))?;
        latest = ended.max(latest);
        Some(now - latest)
    };
    sorted.iter().map(age).collect()
}

/// What is older than `days`, of what resets dated; for the attic, where even the newest goes.
#[must_use]
pub fn older_than(dated: &[Dated], days: u32, now: Option<u64>) -> Vec<u64> {
    let mut sorted = dated.to_vec();
    sorted.sort_by_key(|dated| dated.number);
    let ages = ages(&sorted, now);
    let old = sorted.iter().zip(ages);
    old.filter(|(_, age)| age.is_some_and(|age| age > u64::from(days) * DAY))
        .map(|(dated, _)| dated.number)
        .collect()
}

/// How many of the newest generations stay however little room there is: a user who fills the
/// filesystem must not be able to erase the past.
pub const KEPT_WITHOUT_ROOM: usize = 3;

/// The generations that may go to make room, oldest first.
#[must_use]
pub fn to_make_room(generations: &[Dated]) -> Vec<u64> {
    let mut numbers: Vec<u64> = generations.iter().map(|generation| generation.number).collect();
    numbers.sort_unstable();
    numbers.truncate(numbers.len().saturating_sub(KEPT_WITHOUT_ROOM));
    numbers
}

#[cfg(test)]
mod tests {
    use super::Reason::{TooMany, TooOld};
    use super::*;

    const NOW: u64 = EARLIEST + 1000 * DAY;

    const NONE: Keep = Keep { generations: None, days: None, min_free: None };

    /// Generations by their numbers and the days since they ended.
    fn ended(days_ago: &[(u64, u64)]) -> Vec<Dated> {
        let dated = |&(number, days)| Dated { number, ended: Some(NOW - days * DAY) };
        days_ago.iter().map(dated).collect()
    }

    fn told(generations: &[Dated], keep: Keep) -> Vec<(u64, Reason)> {
        told_at(generations, keep, Some(NOW))
    }

    fn told_at(generations: &[Dated], keep: Keep, now: Option<u64>) -> Vec<(u64, Reason)> {
        let expired = expired(generations, keep, now);
        expired.iter().map(|expired| (expired.number, expired.reason)).collect()
    }

    fn generations(limit: u32) -> Keep {
        Keep { generations: Some(limit), ..NONE }
    }

    fn days(limit: u32) -> Keep {
        Keep { days: Some(limit), ..NONE }
    }

    #[test]
    fn without_a_limit_nothing_goes() {
        assert_eq!(told(&ended(&[(1, 900), (2, 800), (3, 700)]), NONE), []);
    }

    #[test]
    fn the_oldest_by_number_go_when_there_are_too_many_whatever_order_they_come_in() {
        let five = ended(&[(12, 1), (3, 5), (9, 2), (10, 1), (4, 4)]);
        assert_eq!(told(&five, generations(5)), []);
        assert_eq!(told(&five, generations(4)), [(3, TooMany)]);
        assert_eq!(told(&five, generations(2)), [(3, TooMany), (4, TooMany), (9, TooMany)]);
    }

    #[test]
    fn the_newest_stays_even_when_none_is_wanted() {
        let two = ended(&[(1, 900), (2, 800)]);
        assert_eq!(told(&two, generations(0)), [(1, TooMany)]);
        assert_eq!(told(&two, generations(1)), [(1, TooMany)]);
        assert_eq!(told(&two, days(0)), [(1, TooOld)]);
        assert_eq!(told(&two[1..], Keep { generations: Some(0), days: Some(0), ..NONE }), []);
        assert_eq!(told(&[], Keep { generations: Some(0), days: Some(0), ..NONE }), []);
    }

    #[test]
    fn a_generation_goes_when_it_ended_more_than_so_many_days_ago_and_not_a_second_earlier() {
        let at = |seconds_ago| {
            vec![
                Dated { number: 1, ended: Some(NOW - seconds_ago) },
                Dated { number: 2, ended: Some(NOW) },
            ]
        };
        assert_eq!(told(&at(30 * DAY), days(30)), []);
        assert_eq!(told(&at(30 * DAY + 1), days(30)), [(1, TooOld)]);
        assert_eq!(told(&at(0), days(0)), []);
        assert_eq!(told(&at(1), days(0)), [(1, TooOld)]);
    }

    #[test]
    fn with_two_limits_either_is_enough() {
        let keep =
            |generations, days| Keep { generations: Some(generations), days: Some(days), ..NONE };
        let five = ended(&[(1, 50), (2, 40), (3, 30), (4, 20), (5, 10)]);
        assert_eq!(told(&five, keep(10, 25)), [(1, TooOld), (2, TooOld), (3, TooOld)]);
        assert_eq!(told(&five, keep(4, 100)), [(1, TooMany)]);
        assert_eq!(told(&five, keep(4, 35)), [(1, TooMany), (2, TooOld)]);
        assert_eq!(told(&five, keep(2, 45)), [(1, TooMany), (2, TooMany), (3, TooMany)]);
    }

    #[test]
    fn a_time_that_is_missing_in_the_future_or_before_the_first_version_is_no_age() {
        for lie in [None, Some(NOW + 1), Some(u64::MAX), Some(0), Some(1), Some(EARLIEST - 1)] {
            let mut three = ended(&[(1, 90), (2, 80), (3, 70)]);
            three[1].ended = lie;
            assert_eq!(told(&three, days(30)), [(1, TooOld)], "{lie:?}");
            let both = Keep { generations: Some(1), days: Some(30), ..NONE };
            assert_eq!(told(&three, both), [(1, TooMany), (2, TooMany)], "{lie:?}");
        }
        // The earliest that is believed.
        let mut three = ended(&[(1, 90), (2, 80), (3, 70)]);
        three[0].ended = Some(EARLIEST);
        assert_eq!(told(&three, days(30)), [(1, TooOld), (2, TooOld)]);
    }

    #[test]
    fn times_that_all_lie_remove_what_the_other_limit_removes_and_no_more() {
        for lie in [None, Some(NOW + DAY), Some(7)] {
            let all: Vec<_> = (1..=5).map(|number| Dated { number, ended: lie }).collect();
            assert_eq!(told(&all, days(0)), [], "{lie:?}");
            let both = Keep { generations: Some(3), days: Some(0), ..NONE };
            assert_eq!(told(&all, both), [(1, TooMany), (2, TooMany)], "{lie:?}");
        }
    }

    #[test]
    fn without_a_clock_now_or_with_one_in_the_past_nothing_is_old() {
        let three = ended(&[(1, 90), (2, 80), (3, 70)]);
        assert_eq!(told_at(&three, days(30), None), []);
        assert_eq!(told_at(&three, days(30), Some(0)), []);
        assert_eq!(told_at(&three, days(30), Some(NOW - 91 * DAY)), []);
        let both = Keep { generations: Some(2), days: Some(30), ..NONE };
        assert_eq!(told_at(&three, both, None), [(1, TooMany)]);
        assert_eq!(told_at(&three, both, Some(0)), [(1, TooMany)]);
    }

    #[test]
    fn a_generation_that_seems_to_have_ended_before_an_older_one_is_as_young_as_that_one() {
        // The clock fell back by 100 days with reset 2.
        let fell_back = ended(&[(1, 10), (2, 109), (3, 108), (4, 5)]);
        assert_eq!(told(&fell_back, days(30)), []);
        assert_eq!(told(&fell_back, days(9)), [(1, TooOld), (2, TooOld), (3, TooOld)]);
        // A time in the future says nothing about those after it.
        let mut future = ended(&[(1, 90), (2, 80), (3, 70), (4, 1)]);
        future[0].ended = Some(NOW + 1);
        assert_eq!(told(&future, days(30)), [(2, TooOld), (3, TooOld)]);
    }

    #[test]
    fn limits_as_large_as_they_can_be_remove_nothing() {
        let three = ended(&[(1, 900), (2, 800), (u64::MAX, 700)]);
        assert_eq!(
            told(&three, Keep { generations: Some(u32::MAX), days: Some(u32::MAX), ..NONE }),
            []
        );
    }

    #[test]
    fn in_the_attic_the_newest_goes_too_and_lies_stay() {
        let mut attic = ended(&[(5, 31), (2, 40), (9, 29)]);
        assert_eq!(older_than(&attic, 30, Some(NOW)), [2, 5]);
        attic[1].ended = None;
        assert_eq!(older_than(&attic, 30, Some(NOW)), [5]);
        assert_eq!(older_than(&attic, 0, None), [0; 0]);
        assert_eq!(older_than(&attic, 0, Some(NOW)), [5, 9]);
    }

    #[test]
    fn room_is_made_by_all_but_the_newest_three_oldest_first() {
        assert_eq!(to_make_room(&ended(&[(12, 1), (3, 90), (20, 1), (9, 2), (10, 2)])), [3, 9]);
        assert_eq!(to_make_room(&ended(&[(12, 1), (3, 90), (9, 2)])), [0; 0]);
        assert_eq!(to_make_room(&ended(&[(3, 1)])), [0; 0]);
        assert_eq!(to_make_room(&[]), [0; 0]);
    }
}
