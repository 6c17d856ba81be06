//! The files of the templates and SDKs. A test compares these lists with the folders.

use super::File;

macro_rules! files {
    ($dir:literal: $($path:literal),+ $(,)?) => {
        &[$(($path, include_str!(concat!("../../../../../", $dir, "/", $path)))),+]
    };
}

pub(super) const RUST: &[File] = files!("examples/rust/headers":
    ".gitignore",
    "Cargo.toml",
    "README.md",
    "plugin.toml",
    "src/lib.rs",
    "tests/headers.toml",
);
pub(super) const GO: &[File] = files!("examples/go/headers":
    ".gitignore",
    "README.md",
    "go.mod",
    "main.go",
    "plugin.toml",
    "tests/headers.toml",
);
pub(super) const JS: &[File] = files!("examples/js/headers":
    ".gitignore",
    "README.md",
    "package.json",
    "plugin.toml",
    "src/plugin.js",
    "tests/headers.toml",
);
pub(super) const TS: &[File] = files!("examples/ts/headers":
    ".gitignore",
    "README.md",
    "package.json",
    "plugin.toml",
    "src/plugin.ts",
    "tests/headers.toml",
    "tsconfig.json",
);
pub(super) const PYTHON: &[File] = files!("examples/python/headers":
    ".gitignore",
    "README.md",
    "plugin.toml",
    "src/plugin.py",
    "tests/headers.toml",
);
pub(super) const C: &[File] = files!("examples/c/headers":
    ".gitignore",
    "README.md",
    "plugin.toml",
    "src/plugin.c",
    "tests/headers.toml",
);
pub(super) const RUST_SDK: &[File] = files!("sdk/rust":
    "Cargo.toml",
    "README.md",
    "src/bindings.rs",
    "src/config.rs",
    "src/config/tests.rs",
    "src/glue.rs",
    "src/host.rs",
    "src/json.rs",
    "src/json/tests.rs",
    "src/lib.rs",
    "src/message.rs",
    "src/mock.rs",
    "src/mock/functions.rs",
    "src/mock/tests.rs",
    "src/net.rs",
    "src/plugin.rs",
);
pub(super) const GO_SDK: &[File] = files!("sdk/go":
    "README.md",
    "callout.go",
    "crypto.go",
    "exchange.go",
    "glue.go",
    "go.mod",
    "internal/bind/postern_plugin_body/empty.s",
    "internal/bind/postern_plugin_body/wit_bindings.go",
    "internal/bind/postern_plugin_callout/empty.s",
    "internal/bind/postern_plugin_callout/wit_bindings.go",
    "internal/bind/postern_plugin_clock/empty.s",
    "internal/bind/postern_plugin_clock/wit_bindings.go",
    "internal/bind/postern_plugin_crypto/empty.s",
    "internal/bind/postern_plugin_crypto/wit_bindings.go",
    "internal/bind/postern_plugin_dns_solver/empty.s",
    "internal/bind/postern_plugin_dns_solver/wit_bindings.go",
    "internal/bind/postern_plugin_exchange/empty.s",
    "internal/bind/postern_plugin_exchange/wit_bindings.go",
    "internal/bind/postern_plugin_lifecycle/empty.s",
    "internal/bind/postern_plugin_lifecycle/wit_bindings.go",
    "internal/bind/postern_plugin_log/empty.s",
    "internal/bind/postern_plugin_log/wit_bindings.go",
    "internal/bind/postern_plugin_log_phase/empty.s",
    "internal/bind/postern_plugin_log_phase/wit_bindings.go",
    "internal/bind/postern_plugin_metrics/empty.s",
    "internal/bind/postern_plugin_metrics/wit_bindings.go",
    "internal/bind/postern_plugin_random/empty.s",
    "internal/bind/postern_plugin_random/wit_bindings.go",
    "internal/bind/postern_plugin_request/empty.s",
    "internal/bind/postern_plugin_request/wit_bindings.go",
    "internal/bind/postern_plugin_response/empty.s",
    "internal/bind/postern_plugin_response/wit_bindings.go",
    "internal/bind/postern_plugin_secrets/empty.s",
    "internal/bind/postern_plugin_secrets/wit_bindings.go",
    "internal/bind/postern_plugin_shared/empty.s",
    "internal/bind/postern_plugin_shared/wit_bindings.go",
    "internal/bind/postern_plugin_types/empty.s",
    "internal/bind/postern_plugin_types/wit_bindings.go",
    "internal/bind/wit_exports/wit_exports.go",
    "internal/hooks/hooks.go",
    "internal/wit/LICENSE",
    "internal/wit/runtime/empty.s",
    "internal/wit/runtime/runtime.go",
    "internal/wit/types/option.go",
    "internal/wit/types/result.go",
    "internal/wit/types/tuple.go",
    "internal/wit/types/unit.go",
    "message.go",
    "plugin.go",
    "shared.go",
);
pub(super) const JS_SDK: &[File] = files!("sdk/js":
    "README.md",
    "body.d.ts",
    "body.js",
    "callout.d.ts",
    "callout.js",
    "crypto.d.ts",
    "crypto.js",
    "error.js",
    "index.d.ts",
    "index.js",
    "message.js",
    "metrics.d.ts",
    "metrics.js",
    "package.json",
    "phases.js",
    "secrets.d.ts",
    "secrets.js",
    "shared.d.ts",
    "shared.js",
);
pub(super) const PYTHON_SDK: &[File] = files!("sdk/python":
    "README.md",
    "postern_plugin/__init__.py",
    "postern_plugin/callout.py",
    "postern_plugin/phases.py",
);
pub(super) const C_SDK: &[File] = files!("sdk/c":
    "README.md",
    "bind/postern.c",
    "bind/postern.h",
    "json.c",
    "json.h",
    "postern.c",
    "postern.h",
);
