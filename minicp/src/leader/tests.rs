use std::cell::RefCell;

use mote_api::tree::{json, set, str_at};

use super::*;

/// The one Lease there is, as an API server keeps it.
#[derive(Default)]
struct Kept {
    lease: RefCell<Option<Rc<Value>>>,
    version: Cell<u64>,
}

/// One candidate's way to it.
#[derive(Clone)]
struct Way {
    kept: Rc<Kept>,
    /// Nothing gets through.
    cut: Rc<Cell<bool>>,
    /// What is written gets through, its answer does not.
    deaf: Rc<Cell<bool>>,
    /// Of its clock, in seconds.
    wrong: i64,
    start: Instant,
}

impl Way {
    async fn travel(&self) -> Result<(), Status> {
        tokio::time::sleep(Duration::from_millis(3)).await;
        if self.cut.get() { Err(Status::new(500, "InternalError", "cut")) } else { Ok(()) }
    }
    fn store(&self, mut lease: Value) -> Result<Value, Status> {
        self.kept.version.set(self.kept.version.get() + 1);
        set(&mut lease, &["metadata", "resourceVersion"], self.kept.version.get().to_string().into());
        *self.kept.lease.borrow_mut() = Some(Rc::new(lease.clone()));
        if self.deaf.get() { Err(Status::new(504, "Timeout", "no answer")) } else { Ok(lease) }
    }
}

impl Leases for Way {
    fn read(&self) -> Fut<'_, Result<Rc<Value>, Status>> {
        Box::pin(async {
            self.travel().await?;
            self.kept.lease.borrow().clone().ok_or_else(|| Status::new(404, "NotFound", "no lease"))
        })
    }
    fn create(&self, lease: Value) -> Fut<'_, Result<Value, Status>> {
        Box::pin(async {
            self.travel().await?;
            if self.kept.lease.borrow().is_some() {
                return Err(Status::new(409, "AlreadyExists", "there is one"));
            }
            self.store(lease)
        })
    }
    fn update(&self, lease: Value) -> Fut<'_, Result<Value, Status>> {
        Box::pin(async move {
            self.travel().await?;
            let version = |lease: &Value| str_at(lease, &["metadata", "resourceVersion"]).to_owned();
            match &*self.kept.lease.borrow() {
                None => return Err(Status::new(404, "NotFound", "no lease")),
                Some(old) if version(old) != version(&lease) => return Err(Status::new(409, "Conflict", "changed")),
                Some(_) => {}
            }
            self.store(lease)
        })
    }
    fn now(&self) -> Time {
        Time::from_unix(1_800_000_000 + self.wrong + self.start.elapsed().as_secs() as i64)
    }
}

/// Who leads, as their work tells it.
#[derive(Default)]
struct Leaders(RefCell<Vec<usize>>, Cell<usize>);

/// One's work.
struct Led(Rc<Leaders>, usize);

impl Drop for Led {
    fn drop(&mut self) {
        self.0.0.borrow_mut().retain(|n| *n != self.1);
    }
}

struct World {
    kept: Rc<Kept>,
    leaders: Rc<Leaders>,
    ways: Vec<Way>,
    candidates: Vec<Option<Candidate>>,
}

impl World {
    fn new(clocks: &[i64]) -> World {
        let kept: Rc<Kept> = Rc::default();
        let way = |wrong: &i64| Way {
            kept: kept.clone(),
            cut: Rc::default(),
            deaf: Rc::default(),
            wrong: *wrong,
            start: Instant::now(),
        };
        let ways: Vec<Way> = clocks.iter().map(way).collect();
        World { kept, leaders: Rc::default(), candidates: ways.iter().map(|_| None).collect(), ways }
    }
    fn start(&mut self, n: usize) {
        let leaders = self.leaders.clone();
        let work = move |_until: Until| {
            leaders.0.borrow_mut().push(n);
            leaders.1.set(leaders.1.get().max(leaders.0.borrow().len()));
            Led(leaders.clone(), n)
        };
        let me = format!("candidate-{n}").into();
        self.candidates[n] = Some(Candidate::of(self.ways[n].clone(), me, ElectionTimes::default(), work));
    }
    fn leader(&self) -> Option<usize> {
        self.leaders.0.borrow().first().copied()
    }
    /// Seconds until it is `who`; more than a minute is never.
    async fn until(&self, who: Option<usize>) -> u64 {
        let began = Instant::now();
        while self.leader() != who {
            assert!(began.elapsed().as_secs() < 60, "{who:?} does not come: {:?}", self.leader());
            sleep(Duration::from_millis(10)).await;
        }
        began.elapsed().as_secs()
    }
}

fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, test)
}

async fn seconds(n: u64) {
    sleep(Duration::from_secs(n)).await;
}

#[test]
fn one_leads_and_the_next_one_follows() {
    run(async {
        // One clock is years behind, one years ahead.
        let mut world = World::new(&[-1_000_000_000, 1_000_000_000, 0]);
        world.start(0);
        assert_eq!(world.until(Some(0)).await, 0, "nobody else was there");
        world.start(1);
        seconds(120).await;
        assert_eq!(world.leader(), Some(0));
        // kill -9: nothing is said.
        world.candidates[0] = None;
        assert_eq!(world.until(None).await, 0);
        let took = world.until(Some(1)).await;
        assert!((10..=17).contains(&took), "{took} s");
        world.start(2);
        seconds(30).await;
        // Orderly: at once.
        world.candidates[1].take().unwrap().end().await;
        assert!(world.until(Some(2)).await <= 2);
        let lease = world.kept.lease.borrow().clone().unwrap();
        assert_eq!((holder(&lease), &lease["spec"]["leaseTransitions"]), ("candidate-2", &json!(2)));
        assert_eq!(world.leaders.1.get(), 1);
    });
}

#[test]
fn who_is_cut_off_stops_before_the_next_one_begins() {
    run(async {
        for deaf in [false, true] {
            let mut world = World::new(&[0, 0]);
            world.start(0);
            world.until(Some(0)).await;
            world.start(1);
            seconds(20).await;
            let way = if deaf { &world.ways[0].deaf } else { &world.ways[0].cut };
            way.set(true);
            if deaf {
                // What it writes is seen, and it does not know so: nobody leads meanwhile, but never two.
                seconds(60).await;
                assert_eq!(world.leaders.1.get(), 1);
                continue;
            }
            let stopped = world.until(None).await;
            assert!((4..=10).contains(&stopped), "{stopped} s");
            let taken = world.until(Some(1)).await;
            assert!((4..=13).contains(&taken), "{taken} s");
            way.set(false);
            seconds(100).await;
            assert_eq!((world.leader(), world.leaders.1.get()), (Some(1), 1));
        }
    });
}

#[test]
fn a_hiccup_costs_no_turn() {
    run(async {
        let mut world = World::new(&[0, 0]);
        world.start(0);
        world.until(Some(0)).await;
        world.start(1);
        for n in 0..40 {
            world.ways[0].cut.set(n % 4 == 1);
            seconds(1).await;
            assert_eq!(world.leader(), Some(0));
        }
        assert_eq!(world.kept.lease.borrow().as_ref().unwrap()["spec"]["leaseTransitions"], 0);
    });
}

#[test]
fn hands_on_the_lease() {
    run(async {
        let mut world = World::new(&[0, 0]);
        world.start(0);
        world.until(Some(0)).await;
        world.start(1);
        seconds(10).await;
        // Deleted: its holder makes it anew before anybody takes it.
        *world.kept.lease.borrow_mut() = None;
        seconds(60).await;
        assert_eq!((world.leader(), world.leaders.1.get()), (Some(0), 1));
        // A label is no other holder.
        let mut lease = Value::clone(world.kept.lease.borrow().as_ref().unwrap());
        set(&mut lease, &["metadata", "labels"], json!({"a": "b"}));
        world.ways[0].store(lease.clone()).unwrap();
        seconds(60).await;
        assert_eq!(world.leader(), Some(0));
        assert_eq!(world.kept.lease.borrow().as_ref().unwrap()["metadata"]["labels"]["a"], "b");
        // Another holder is one, whoever wrote it.
        set(&mut lease, &["spec", "holderIdentity"], "nobody-is-called-so".into());
        world.ways[0].store(lease).unwrap();
        assert!(world.until(None).await <= 5);
        seconds(20).await;
        assert_eq!(world.leaders.0.borrow().len(), 1);
        assert_eq!(world.leaders.1.get(), 1);
    });
}

/// Three of them for a day, cut off, killed, started and ended at random: never two at once, and when it is calm one leads.
#[test]
fn never_two_at_once() {
    for seed in 0..30_u64 {
        run(async {
            let mut world = World::new(&[0, 1_000_000, -1_000_000]);
            let mut random = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
            let mut below = |n: u64| {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                random % n
            };
            for _ in 0..400 {
                let n = below(3) as usize;
                match below(7) {
                    0 | 1 => world.ways[n].cut.set(true),
                    2 => world.ways[n].deaf.set(true),
                    3 => {
                        world.ways[n].cut.set(false);
                        world.ways[n].deaf.set(false);
                    }
                    4 => world.candidates[n] = None,
                    5 => {
                        if let Some(candidate) = world.candidates[n].take() {
                            candidate.end().await;
                        }
                    }
                    _ if world.candidates[n].is_none() => world.start(n),
                    _ => {}
                }
                sleep(Duration::from_millis(below(9000))).await;
                assert!(world.leaders.1.get() <= 1, "seed {seed}: two at once");
            }
            for n in 0..3 {
                world.ways[n].cut.set(false);
                world.ways[n].deaf.set(false);
                if world.candidates[n].is_none() {
                    world.start(n);
                }
            }
            seconds(40).await;
            assert_eq!(world.leaders.0.borrow().len(), 1, "seed {seed}");
        });
    }
}

#[test]
fn a_turn_that_is_over_writes_nothing() {
    run(async {
        let api = crate::control::sim::empty();
        let until: Until = Rc::new(Cell::new(Instant::now() + Duration::from_secs(10)));
        let gate = Gate { api: api.clone(), until };
        let pod =
            |name: &str| json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default"}});
        Api::create(&gate, "pods", "default", pod("a")).await.unwrap();
        // The process is stopped meanwhile.
        tokio::time::advance(Duration::from_secs(10)).await;
        let refused = Api::create(&gate, "pods", "default", pod("b")).await.unwrap_err();
        assert_eq!(refused.code, 503);
        for refused in [
            gate.update("pods", pod("a")).await.err(),
            gate.update_status("pods", pod("a")).await.err(),
            gate.merge_patch("pods", "default", "a", None, json!({})).await.err(),
            gate.delete("pods", "default", "a", Default::default()).await.err(),
            gate.bind("default", "a", "", "n").await.err(),
        ] {
            assert_eq!(refused.map(|s| s.code), Some(503));
        }
        assert_eq!(gate.list("pods", None).await.unwrap().0.len(), 1);
    });
}
