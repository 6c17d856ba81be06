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

/// The interfaces that a plugin may import.
pub const IMPORTS: [&str; 13] = [
    "types", "request", "response", "body", "exchange", "log", "metrics", "shared", "callout",
    "clock", "random", "secrets", "crypto",
];

/// Those among [`IMPORTS`] that every plugin may call without being granted anything, and that
/// every host has served.
pub const PLAIN_IMPORTS: [&str; 7] = [
    "types", "request", "response", "exchange", "log", "clock", "random",
];

/// The name of the world that [`world`] writes.
pub const WORLD: &str = "plugin";

/// A world for a plugin with these phases and imports, to stand in one package with [`SOURCES`].
/// Names that are not in [`PHASES`] or [`IMPORTS`] are left out.
///
/// A compiler that links imports only where they are used may be given all of [`IMPORTS`]; for an
/// interpreter, which has them all in its component, what is here is what an operator has to grant.
pub fn world<'a>(
    phases: impl IntoIterator<Item = &'a str>,
    imports: impl IntoIterator<Item = &'a str>,
) -> String {
    let mut text = format!("world {WORLD} {{\n  export lifecycle;\n");
    let mut push = |word: &str, interface: &str| {
        for part in ["  ", word, " ", interface, ";\n"] {
            text.push_str(part);
        }
    };
    for import in imports {
        if IMPORTS.contains(&import) {
            push("import", import);
        }
    }
    for phase in phases {
        if let Some((_, interface)) = PHASES.iter().find(|(name, _)| *name == phase) {
            push("export", interface);
        }
    }
    text.push_str("}\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_world_has_the_phases_and_imports_that_are_named_and_no_others() {
        let text = world(["request", "no-phase"], ["types", "callout", "no-import"]);
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        let want = [
            "world plugin {",
            "export lifecycle;",
            "import types;",
            "import callout;",
            "export request-phase;",
            "}",
        ];
        assert_eq!(lines, want);
    }
}
