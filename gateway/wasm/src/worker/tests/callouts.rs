//! Requests that a guest makes, and the time of its call.

use std::sync::Mutex;

use postern_core::config::plugin::Grants;

use super::*;
use crate::callout::Callout;
use crate::callout::CalloutFuture;

/// Never answers, and keeps the times that were given.
#[derive(Default)]
struct Silent(Mutex<Vec<Duration>>);

impl Callouts for Silent {
    fn send(&self, callout: Callout) -> CalloutFuture {
        self.0.lock().unwrap().push(callout.timeout);
        Box::pin(std::future::pending())
    }
}

/// A guest that sleeps for 20 ms, makes a callout with this time, and answers 210 and the number
/// of the case of `call-error`.
fn calling(timeout_ms: u32) -> String {
    let import = r#"
      (import "postern:plugin/clock@0.1.0" "sleep-ms" (func $sleep (param i32)))
      (import "postern:plugin/callout@0.1.0" "send" (func $send
        (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32)))"#;
    let answer = respond("(i32.add (i32.const 210) (i32.load8_u (i32.const 604)))");
    let fields = format!(
        r#"(data (i32.const 16384) "idpGET/")
        (func (export "postern:plugin/request-phase@0.1.0#on-request")
          (param i32 i32) (result i32)
          (call $sleep (i32.const 20))
          (call $send (i32.const 16384) (i32.const 3) (i32.const 16387) (i32.const 3)
            (i32.const 16390) (i32.const 1) (i32.const 0) (i32.const 0)
            (i32.const 0) (i32.const 0) (i32.const {timeout_ms}) (i32.const 0) (i32.const 600))
          {answer}
          (i32.const 512))"#
    );
    guest(import, &fields)
}

#[tokio::test(start_paused = true)]
async fn a_callout_ends_before_the_call_that_made_it() {
    const TIMEOUT: u16 = 212;
    for timeout_ms in [0, 60_000] {
        let engine = PluginEngine::new(None).unwrap();
        let component = Component::load(&engine, &component(&calling(timeout_ms))).unwrap();
        let limits = PluginLimits {
            time: Duration::from_millis(200),
            ..quick()
        };
        let name = PolicyName::parse("guest").unwrap();
        let setup = PluginSetup {
            grants: Grants {
                upstreams: [UpstreamName::parse("idp").unwrap()].into(),
                ..Grants::default()
            },
            ..PluginSetup::new(name, "{}".into(), limits)
        };
        let plugin = Plugin::set_up(component, setup, None).await.unwrap();
        let silent = Arc::new(Silent::default());
        let worker = plugin.worker_with(Arc::<Silent>::clone(&silent));
        for _ in 0..2 {
            let action = worker.on_request(&mut Exchange::default()).await.unwrap();
            assert_eq!(status_of(&action), TIMEOUT, "asked for {timeout_ms} ms");
        }
        assert_eq!(worker.stats().created(), 1);
        for given in silent.0.lock().unwrap().iter() {
            let want = Duration::from_millis(165)..=Duration::from_millis(170);
            assert!(want.contains(given), "{given:?}");
        }
    }
}
