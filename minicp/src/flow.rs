//! Fair turns: requests of many users share a bounded number of seats, so that one client with a thousand connections does not starve the nodes.
//!
//! A request holds a seat until its answer is formed (a watch until it has begun). Whoever has all the seats one user may have waits in that user's own
//! queue; a seat that gets free goes to the users in turn, not to who came first. A user with several requests at once lets others in between them: this
//! is one thread, and fairness is in what runs next.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;

use mote_api::status::Status;
use mote_api::tree::json;
use tokio::sync::oneshot;

/// Requests worked on at once.
pub const SEATS_MAX: usize = 256;
/// Of them, for one user.
pub const USER_SEATS_MAX: usize = 32;
/// Requests of one user that wait; more are told to come again (429).
pub const USER_WAITING_MAX: usize = 1024;
/// Seconds after which they may.
const RETRY_SECONDS: u64 = 1;

#[derive(Default)]
struct User {
    seats: usize,
    waiting: VecDeque<oneshot::Sender<Seat>>,
}

#[derive(Default)]
struct State {
    seats: usize,
    users: HashMap<Rc<str>, User>,
    /// Users who wait, in the order of their turns.
    turns: VecDeque<Rc<str>>,
}

/// The seats of a server.
#[derive(Default)]
pub(crate) struct Flow(RefCell<State>);

/// The right to be worked on; given back when dropped.
pub(crate) struct Seat {
    flow: Rc<Flow>,
    user: Rc<str>,
}

impl Flow {
    /// Waits for a seat; Err: too many of this user's requests wait already.
    pub(crate) async fn enter(self: &Rc<Flow>, user: &str) -> Result<Seat, Status> {
        let (seat, crowd) = match self.ask(user)? {
            Ok(seated) => seated,
            Err(turn) => match turn.await {
                Ok(seat) => (seat, false),
                // The queue never drops a sender unheard.
                Err(_) => return Err(busy()),
            },
        };
        if crowd {
            tokio::task::yield_now().await;
        }
        Ok(seat)
    }
    /// A seat and whether the user has others, or a place in the queue.
    #[allow(clippy::type_complexity)]
    fn ask(self: &Rc<Flow>, name: &str) -> Result<Result<(Seat, bool), oneshot::Receiver<Seat>>, Status> {
        let mut state = self.0.borrow_mut();
        let name: Rc<str> = match state.users.get_key_value(name) {
            Some((known, _)) => known.clone(),
            None => name.into(),
        };
        let full = state.seats >= SEATS_MAX;
        let user = state.users.entry(name.clone()).or_default();
        if !full && user.seats < USER_SEATS_MAX && user.waiting.is_empty() {
            user.seats += 1;
            let crowd = user.seats > 1;
            state.seats += 1;
            return Ok(Ok((Seat { flow: self.clone(), user: name }, crowd)));
        }
        if user.waiting.len() >= USER_WAITING_MAX {
            return Err(busy());
        }
        let (sender, receiver) = oneshot::channel();
        user.waiting.push_back(sender);
        if user.waiting.len() == 1 {
            state.turns.push_back(name);
        }
        Ok(Err(receiver))
    }
    /// Takes back one seat, and gives away one that is free.
    fn give_back(self: &Rc<Flow>, name: &Rc<str>) {
        self.take_back(name);
        // A request that is gone drops the seat it is sent, which comes here again: as deep as requests are gone, and those are bounded.
        while let Some((sender, seat)) = self.next() {
            drop(sender.send(seat));
        }
    }
    fn take_back(&self, name: &Rc<str>) {
        let mut state = self.0.borrow_mut();
        state.seats = state.seats.saturating_sub(1);
        if let Some(user) = state.users.get_mut(name) {
            user.seats = user.seats.saturating_sub(1);
            if user.seats == 0 && user.waiting.is_empty() {
                state.users.remove(name);
            }
        }
    }
    /// The next one whose turn it is, if there is room.
    fn next(self: &Rc<Flow>) -> Option<(oneshot::Sender<Seat>, Seat)> {
        let mut state = self.0.borrow_mut();
        if state.seats >= SEATS_MAX {
            return None;
        }
        for _ in 0..state.turns.len() {
            let name = state.turns.pop_front()?;
            let Some(user) = state.users.get_mut(&name) else { continue };
            if user.seats >= USER_SEATS_MAX {
                state.turns.push_back(name);
                continue;
            }
            let sender = user.waiting.pop_front();
            let more = !user.waiting.is_empty();
            if sender.is_some() {
                user.seats += 1;
                state.seats += 1;
            }
            if more {
                state.turns.push_back(name.clone());
            }
            if let Some(sender) = sender {
                return Some((sender, Seat { flow: self.clone(), user: name }));
            }
        }
        None
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let (flow, user) = (self.flow.clone(), self.user.clone());
        flow.give_back(&user);
    }
}

fn busy() -> Status {
    let mut status =
        Status::new(429, "TooManyRequests", "too many requests of this user wait already, please try again later");
    status.details = json!({"retryAfterSeconds": RETRY_SECONDS});
    status
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run<F: Future<Output = ()>>(test: F) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        tokio::task::LocalSet::new().block_on(&runtime, test);
    }

    #[test]
    fn one_user_does_not_take_all_and_turns_go_round() {
        run(async {
            let flow = Rc::new(Flow::default());
            let mut held = Vec::new();
            for _ in 0..USER_SEATS_MAX {
                held.push(flow.enter("greedy").await.unwrap_or_else(|_| panic!("a seat")));
            }
            let done = Rc::new(RefCell::new(Vec::new()));
            let mut tasks = tokio::task::JoinSet::new();
            for n in 0..3 {
                let (flow, done) = (flow.clone(), done.clone());
                tasks.spawn_local(async move {
                    let _seat = flow.enter("greedy").await;
                    done.borrow_mut().push(n);
                });
            }
            tokio::task::yield_now().await;
            assert!(done.borrow().is_empty(), "they wait");
            assert!(flow.enter("node").await.is_ok(), "another does not");
            held.pop();
            while tasks.join_next().await.is_some() {}
            assert_eq!(*done.borrow(), [0, 1, 2]);
            held.clear();
            assert!(flow.0.borrow().users.is_empty() && flow.0.borrow().seats == 0 && flow.0.borrow().turns.is_empty());
        });
    }

    #[test]
    fn who_is_gone_frees_the_place_and_too_many_are_told() {
        run(async {
            let flow = Rc::new(Flow::default());
            let mut held = Vec::new();
            for _ in 0..USER_SEATS_MAX {
                held.push(flow.enter("u").await.unwrap_or_else(|_| panic!("a seat")));
            }
            let waiting: Vec<_> =
                (0..USER_WAITING_MAX).map(|_| flow.ask("u").unwrap_or_else(|_| panic!()).err()).collect();
            assert_eq!(flow.enter("u").await.err().map(|s| s.code), Some(429));
            drop(waiting);
            held.clear();
            assert_eq!(flow.0.borrow().seats, 0);
            assert!(flow.enter("u").await.is_ok());
            assert!(flow.0.borrow().users.is_empty());
        });
    }
}
