//! The same thing very often: what holds once has to hold always.

use std::pin::pin;
use std::task::Poll;

use super::*;

fn setup(name: &str, limits: PluginLimits) -> PluginSetup {
    PluginSetup::new(PolicyName::parse(name).unwrap(), "{}".to_owned(), limits)
}

/// Waits a hundred times for a millisecond, on POST.
const WAITING: &str = r#"
  (import "postern:plugin/clock@0.1.0" "sleep-ms" (func $sleep (param i32)))
  (import "postern:plugin/request@0.1.0" "method" (func $method (param i32)))
"#;

fn waiting() -> String {
    guest(
        WAITING,
        r#"(func (export "postern:plugin/request-phase@0.1.0#on-request")
          (param $view i32) (param $len i32) (result i32) (local $i i32)
          (memory.fill (i32.const 512) (i32.const 0) (i32.const 32))
          (call $method (i32.const 600))
          (if (i32.eq (i32.load (i32.const 604)) (i32.const 4)) (then
            (loop $l
              (call $sleep (i32.const 1))
              (local.set $i (i32.add (local.get $i) (i32.const 1)))
              (br_if $l (i32.lt_u (local.get $i) (i32.const 100))))))
          (i32.const 512))"#,
    )
}

#[tokio::test(start_paused = true)]
async fn a_thousand_calls_are_dropped_at_fifty_points() {
    let worker = worker_of(&waiting(), quick()).await;
    let mut dropped = 0;
    for point in 0..50 {
        for _ in 0..20 {
            let mut exchange = post();
            let mut call = pin!(worker.on_request(&mut exchange));
            let mut suspended = 0;
            std::future::poll_fn(|cx| {
                assert!(call.as_mut().poll(cx).is_pending(), "point {point}");
                suspended += 1;
                match suspended > point {
                    true => Poll::Ready(()),
                    false => Poll::Pending,
                }
            })
            .await;
            dropped += 1;
        }
        let action = worker.on_request(&mut Exchange::default()).await;
        assert!(matches!(action, Ok(Action::Next)), "{action:?}");
    }
    assert_eq!(dropped, 1000);
    assert_eq!(worker.stats().cancelled(), 1000);
    assert_eq!(worker.stats().live(), 1);
}

#[tokio::test(start_paused = true)]
async fn instances_of_a_burst_are_given_up_when_it_is_over() {
    // Ten are made at once on one thread; how fast is no matter here.
    let limits = PluginLimits {
        cpu: Duration::from_secs(5),
        ..quick()
    };
    let worker = std::rc::Rc::new(worker_of(&waiting(), limits).await);
    let burst = async |calls: usize| {
        let calls: Vec<_> = (0..calls)
            .map(|_| {
                let worker = std::rc::Rc::clone(&worker);
                tokio::task::spawn_local(async move {
                    worker.on_request(&mut post()).await.unwrap();
                })
            })
            .collect();
        for call in calls {
            call.await.unwrap();
        }
    };
    let local = tokio::task::LocalSet::new();
    let run = async {
        burst(10).await;
        worker.reap();
        assert_eq!(worker.stats().live(), 10, "all of them were needed");
        burst(2).await;
        worker.reap();
        assert_eq!(worker.stats().live(), 2);
        for _ in 0..3 {
            worker.reap();
            assert_eq!(worker.stats().live(), 1, "one is kept");
        }
        burst(10).await;
        assert_eq!(worker.stats().created(), 19);
    };
    local.run_until(run).await;
}

/// Answers 500 if anything is left of another exchange: in memory, in a global, in the table.
const CANARY: &str = "
  (if (i32.or (i32.or (i32.load (i32.const 60000)) (global.get $count))
        (i32.ne (table.size $t) (i32.const 1)))
    (then (i32.store8 (i32.const 512) (i32.const 1))
      (i32.store16 (i32.const 516) (i32.const 500))))
  (i32.store (i32.const 60000) (i32.const 0x5eed))
  (global.set $count (i32.const 0x5eed))
  (drop (table.grow $t (ref.null func) (i32.const 3)))";

#[tokio::test]
async fn ten_thousand_fresh_instances_find_nothing_of_each_other() {
    let component = component(&on_request(CANARY));
    let component = Component::load(&PluginEngine::new(None).unwrap(), &component).unwrap();
    let setup = PluginSetup {
        isolation: Isolation::Request,
        ..setup("canary", quick())
    };
    let worker = Plugin::set_up(component, setup, None).await.unwrap();
    let worker = worker.worker();
    for run in 0..10_000 {
        let action = worker.on_request(&mut Exchange::default()).await.unwrap();
        assert!(matches!(action, Action::Next), "run {run}: {action:?}");
    }
    assert_eq!(worker.stats().created(), 10_000);
}

/// As much as sixteen of them want.
const BUDGET: u64 = 16 << 20;

#[tokio::test]
async fn two_hundred_bombs_at_once_stay_within_the_memory_of_all() {
    let engine = PluginEngine::new(None).unwrap();
    engine.limit_memory(BUDGET);
    // As much as there is, all of it touched; then one wait, so that all have it at once.
    let bomb = guest(
        WAITING,
        r#"(func (export "postern:plugin/request-phase@0.1.0#on-request")
          (param $view i32) (param $len i32) (result i32)
          (call $method (i32.const 600))
          (if (i32.eq (i32.load (i32.const 604)) (i32.const 4)) (then
            (loop $l (br_if $l (i32.ne (memory.grow (i32.const 1)) (i32.const -1))))
            (call $sleep (i32.const 50))
            unreachable))
          (memory.fill (i32.const 512) (i32.const 0) (i32.const 32))
          (i32.const 512))"#,
    );
    let component = Component::load(&engine, &component(&bomb)).unwrap();
    let limits = PluginLimits {
        memory: 1 << 20,
        instances: 200,
        time: Duration::from_secs(20),
        ..quick()
    };
    let plugin = Plugin::set_up(Arc::clone(&component), setup("bomb", limits), None)
        .await
        .unwrap();
    let worker = std::rc::Rc::new(plugin.worker());
    let local = tokio::task::LocalSet::new();
    let calls: Vec<_> = (0..200)
        .map(|_| {
            let worker = std::rc::Rc::clone(&worker);
            local.spawn_local(async move { worker.on_request(&mut post()).await.unwrap_err() })
        })
        .collect();
    let mut crowded_out = 0;
    local
        .run_until(async {
            for call in calls {
                // The first take all there is; those after them cannot even start. That they
                // cannot is no fault of theirs.
                let error = call.await.unwrap();
                crowded_out += u32::from(matches!(error, PluginError::MemoryFull));
                let is_answered = matches!(
                    error,
                    PluginError::Memory | PluginError::MemoryFull | PluginError::BreakerOpen
                );
                assert!(is_answered, "{error:?}");
            }
        })
        .await;
    assert!(crowded_out > 0);
    assert!(worker.stats().calls() == 200 && worker.stats().live() == 0);
    // And all of it is there again. The plugin itself is left alone for a while.
    let another = Plugin::set_up(component, setup("another", limits), None)
        .await
        .unwrap();
    let action = another.worker().on_request(&mut Exchange::default()).await;
    assert!(matches!(action, Ok(Action::Next)), "{action:?}");
    assert!(engine.memory().take(BUDGET));
}
