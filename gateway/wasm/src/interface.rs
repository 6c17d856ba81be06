//! The interface as text, for what makes components: the sources in `wit/`, and a world for the
//! phases that one plugin has.

/// The files of `wit/`, which are one package.
pub const SOURCES: [(&str, &str); 4] = [
    ("types.wit", include_str!("../../../wit/types.wit")),
    ("phases.wit", include_str!("../../../wit/phases.wit")),
    ("host.wit", include_str!("../../../wit/host.wit")),
    ("worlds.wit", include_str!("../../../wit/worlds.wit")),
];

/// The phases by the names that authors use, and the interfaces that they are.
pub const PHASES: [(&str, &str); 11] = [
    ("route", "route-phase"),
    ("request", "request-phase"),
    ("request-body", "request-body-phase"),
    ("request-stream", "request-stream"),
    ("response", "response-phase"),
    ("response-body", "response-body-phase"),
    ("response-stream", "response-stream"),
    ("log", "log-phase"),
    ("challenge", "challenge-phase"),
    ("background", "background"),
    ("dns-solver", "dns-solver"),
];

/// The name of the world that [`world`] writes.
pub const WORLD: &str = "plugin";

/// A world for a plugin with these phases, to stand in one package with [`SOURCES`]. Names that are
/// not in [`PHASES`] are left out.
pub fn world<'a>(phases: impl IntoIterator<Item = &'a str>) -> String {
    let mut text = format!("world {WORLD} {{\n  include host;\n  export lifecycle;\n");
    for phase in phases {
        if let Some((_, interface)) = PHASES.iter().find(|(name, _)| *name == phase) {
            text.push_str("  export ");
            text.push_str(interface);
            text.push_str(";\n");
        }
    }
    text.push_str("}\n");
    text
}
