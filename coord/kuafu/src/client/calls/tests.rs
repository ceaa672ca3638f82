//! Slots: each call ends once, with its own answer, and gives its credit back once.

use std::sync::Arc;
use std::task::Wake;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::message::PayloadCheck;
use crate::status::Code;

struct NoWaker;

impl Wake for NoWaker {
    fn wake(self: Arc<Self>) {}
}

fn waker() -> Waker {
    Waker::from(Arc::new(NoWaker))
}

fn answer(text: &'static str) -> Outcome {
    let payload = bytes::Bytes::new();
    Ok(Answer { message: text.into(), payload, payload_check: PayloadCheck::Crc })
}

fn later() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

#[test]
fn answered_call() {
    let mut calls = Calls::default();
    let (id, earliest) = calls.insert(later(), 3).unwrap();
    assert!(earliest && id != 0 && calls.waiting() == 1 && !calls.is_empty());
    assert!(calls.poll(id, &waker()).is_pending());
    let (credit, woken) = calls.complete(id, answer("a")).unwrap();
    assert!(credit == Credit { units: 3 } && woken.is_some());
    assert!(calls.complete(id, answer("twice")).is_none());
    assert_eq!(calls.poll(id, &waker()), Poll::Ready(answer("a")));
    assert!(calls.is_empty());
}

#[test]
fn late_answer_never_reaches_the_next_call_in_the_slot() {
    let mut calls = Calls::default();
    let (old, _) = calls.insert(later(), 1).unwrap();
    calls.complete(old, answer("old")).unwrap();
    assert!(calls.poll(old, &waker()).is_ready());
    let (new, _) = calls.insert(later(), 1).unwrap();
    assert_ne!(old, new);
    assert!(calls.complete(old, answer("old again")).is_none());
    assert!(calls.complete(new + 1, answer("no such slot")).is_none());
    assert!(calls.poll(new, &waker()).is_pending());
}

#[test]
fn abandoned_call_keeps_its_slot_until_the_answer() {
    let mut calls = Calls::default();
    let (id, _) = calls.insert(later(), 2).unwrap();
    assert!(calls.abandon(id), "the server is told");
    assert!(!calls.is_empty() && calls.waiting() == 0);
    let (credit, woken) = calls.complete(id, answer("nobody cares")).unwrap();
    assert!(credit == Credit { units: 2 } && woken.is_none() && calls.is_empty());
    assert!(!calls.abandon(id));
}

#[test]
fn expired_call() {
    let mut calls = Calls::default();
    let now = Instant::now();
    let (short, _) = calls.insert(now, 1).unwrap();
    let (long, earliest) = calls.insert(now + Duration::from_secs(5), 1).unwrap();
    assert!(!earliest);
    let mut ended = Vec::new();
    calls.expire(now, &mut ended);
    assert_eq!(ended.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [short]);
    assert_eq!(calls.earliest_deadline(), Some(now + Duration::from_secs(5)));
    let Poll::Ready(Err(status)) = calls.poll(short, &waker()) else { panic!("still waits") };
    assert_eq!(status.code, Code::DeadlineExceeded);
    assert!(calls.complete(short, answer("late")).is_some(), "its credit comes back");
    assert!(calls.poll(long, &waker()).is_pending());
}

#[test]
fn answer_between_deadline_and_the_callers_look() {
    let mut calls = Calls::default();
    let (id, _) = calls.insert(Instant::now(), 1).unwrap();
    calls.expire(Instant::now(), &mut Vec::new());
    assert!(calls.complete(id, answer("late")).is_some());
    let Poll::Ready(Err(status)) = calls.poll(id, &waker()) else { panic!("no outcome") };
    assert_eq!(status.code, Code::DeadlineExceeded);
    assert!(calls.is_empty());
}

#[test]
fn broken_connection_ends_all_and_admits_none() {
    let mut calls = Calls::default();
    let ids: Vec<_> = (0..4).map(|_| calls.insert(later(), 1).unwrap().0).collect();
    for id in &ids {
        assert!(calls.poll(*id, &waker()).is_pending());
    }
    calls.complete(ids[0], answer("in time")).unwrap();
    calls.abandon(ids[1]);
    let mut wake = Vec::new();
    calls.fail_all(&Status::unavailable("first"), &mut wake);
    calls.fail_all(&Status::unavailable("second"), &mut wake);
    assert_eq!(wake.len(), 2);
    assert_eq!(calls.poll(ids[0], &waker()), Poll::Ready(answer("in time")));
    for id in &ids[2..] {
        assert_eq!(calls.poll(*id, &waker()), Poll::Ready(Err(Status::unavailable("first"))));
    }
    assert!(calls.is_empty());
    assert_eq!(calls.insert(later(), 1), Err(Status::unavailable("first")));
}

#[derive(Clone, Debug)]
enum Op {
    Insert { expires: bool },
    Complete(usize),
    Poll(usize),
    Abandon(usize),
    Expire,
}

fn any_op() -> impl Strategy<Value = Op> {
    prop_oneof![
        any::<bool>().prop_map(|expires| Op::Insert { expires }),
        (0..100usize).prop_map(Op::Complete),
        (0..100usize).prop_map(Op::Poll),
        (0..100usize).prop_map(Op::Abandon),
        Just(Op::Expire),
    ]
}

proptest! {
    /// Whatever the order of events: credit comes back exactly once for each call that was answered, and an outcome is
    /// seen at most once by a caller that did not give up.
    #[test]
    fn credit_balances(ops in proptest::collection::vec(any_op(), 1..200)) {
        let start = Instant::now();
        let mut calls = Calls::default();
        let mut ids: Vec<u64> = Vec::new();
        // By call: did its caller finish, did its answer come.
        let (mut over, mut answered) = (Vec::new(), Vec::new());
        for op in ops {
            match op {
                Op::Insert { expires } => {
                    let deadline = if expires { start } else { start + Duration::from_secs(999) };
                    let (id, _) = calls.insert(deadline, 1).unwrap();
                    prop_assert!(!ids.contains(&id));
                    ids.push(id);
                    over.push(false);
                    answered.push(false);
                }
                Op::Complete(i) if i < ids.len() => {
                    prop_assert_eq!(calls.complete(ids[i], answer("x")).is_some(), !answered[i]);
                    answered[i] = true;
                }
                Op::Poll(i) if i < ids.len() && !over[i] => {
                    let ready = calls.poll(ids[i], &waker()).is_ready();
                    prop_assert!(ready || !answered[i]);
                    over[i] = ready;
                }
                Op::Abandon(i) if i < ids.len() && !over[i] => {
                    calls.abandon(ids[i]);
                    over[i] = true;
                }
                Op::Expire => calls.expire(start, &mut Vec::new()),
                Op::Complete(_) | Op::Poll(_) | Op::Abandon(_) => {}
            }
            let open = over.iter().zip(&answered).filter(|(over, answered)| !**over || !**answered).count();
            prop_assert_eq!(calls.is_empty(), open == 0);
        }
    }
}
