//! The phases that a component may export: what it has, where they are, how they are reached.

use wasmtime::AsContextMut;
use wasmtime::component::Instance;
use wasmtime::component::InstancePre;

use crate::bindings::exports::postern::plugin::background;
use crate::bindings::exports::postern::plugin::challenge_phase;
use crate::bindings::exports::postern::plugin::dns_solver;
use crate::bindings::exports::postern::plugin::lifecycle;
use crate::bindings::exports::postern::plugin::log_phase;
use crate::bindings::exports::postern::plugin::request_body_phase;
use crate::bindings::exports::postern::plugin::request_phase;
use crate::bindings::exports::postern::plugin::request_stream;
use crate::bindings::exports::postern::plugin::response_body_phase;
use crate::bindings::exports::postern::plugin::response_phase;
use crate::bindings::exports::postern::plugin::response_stream;
use crate::bindings::exports::postern::plugin::route_phase;
use crate::host::HostState;

/// One list of the phases, for the three things that are needed of each.
macro_rules! phases {
    ($($field:ident: $module:ident = $name:literal),* $(,)?) => {
        /// Which phases a component exports.
        #[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
        pub struct Phases {
            $(pub $field: bool),*
        }

        impl Phases {
            /// Takes note of an exported interface; `false` if it is no phase.
            pub(super) fn note(&mut self, interface: &str) -> bool {
                match interface {
                    $($name => self.$field = true,)*
                    _ => return false,
                }
                true
            }

            /// The names of their interfaces.
            pub fn names(&self) -> impl Iterator<Item = &'static str> {
                [$((self.$field, $name)),*]
                    .into_iter()
                    .filter_map(|(is_there, name)| is_there.then_some(name))
            }
        }

        /// Where the exported functions are in the component.
        pub(crate) struct Exports {
            pub(crate) lifecycle: lifecycle::GuestIndices,
            $($field: Option<$module::GuestIndices>),*
        }

        impl Exports {
            pub(super) fn new(
                linked: &InstancePre<HostState>,
                phases: Phases,
            ) -> wasmtime::Result<Self> {
                Ok(Self {
                    lifecycle: lifecycle::GuestIndices::new(linked)?,
                    $($field: if phases.$field {
                        Some($module::GuestIndices::new(linked)?)
                    } else {
                        None
                    }),*
                })
            }

            pub(super) fn phases(&self) -> Phases {
                Phases {
                    $($field: self.$field.is_some()),*
                }
            }
        }

        /// The exported functions in one instance.
        pub(crate) struct Guests {
            $(pub(crate) $field: Option<$module::Guest>),*
        }

        impl Guests {
            pub(crate) fn load(
                exports: &Exports,
                mut store: impl AsContextMut,
                instance: &Instance,
            ) -> wasmtime::Result<Self> {
                Ok(Self {
                    $($field: match &exports.$field {
                        Some(indices) => Some(indices.load(&mut store, instance)?),
                        None => None,
                    }),*
                })
            }
        }
    };
}

phases! {
    route: route_phase = "route-phase",
    request: request_phase = "request-phase",
    request_body: request_body_phase = "request-body-phase",
    request_stream: request_stream = "request-stream",
    response: response_phase = "response-phase",
    response_body: response_body_phase = "response-body-phase",
    response_stream: response_stream = "response-stream",
    log: log_phase = "log-phase",
    challenge: challenge_phase = "challenge-phase",
    background: background = "background",
    solver: dns_solver = "dns-solver",
}
