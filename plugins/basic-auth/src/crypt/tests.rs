use super::*;

#[test]
fn hashes_are_those_of_the_specification_and_of_openssl() {
    let cases = [
        (
            "Hello world!",
            "$5$saltstring$5B8vYYiY.CVt1RlTTf8KbXBH3hsxY/GNooZaBBGWEc5",
        ),
        (
            "Hello world!",
            "$5$rounds=10000$saltstringsaltst$3xv.VbSHBb41AL9AvLeujZkZRBAwqFMz2.opqey6IcA",
        ),
        (
            "Hello world!",
            "$6$saltstring$svn8UoSVapNtMuq1ukKS4tPQd8iKwSMHWjl/O817G3uBnIFNjnQJuesI68u4OTLiBFdcbYEdFCoEOfaS35inz1",
        ),
        (
            "secret",
            "$5$abcdefgh$gruCpC7VkOTspMQTTSAR8mtlO9Upms.fwqE5y16JVM.",
        ),
        (
            "secret",
            "$6$abcdefgh$ltjgWl6579NluT/Vi1nwEvcil.G5Nbc4NiXZaNGStk8PSwGfQv72N2CKPPrVACtLtip/cZ/1GM/O6IND4WQhG.",
        ),
    ];
    for (password, hash) in cases {
        let crypt = match Crypt::parse(hash) {
            Ok(crypt) => crypt,
            Err(error) => panic!("{hash}: {error}"),
        };
        assert!(crypt.verify(password), "{hash}");
        assert!(!crypt.verify("hello world!"), "{hash}");
        assert!(!crypt.verify(""), "{hash}");
    }
}

#[test]
fn a_long_password_is_wrong_rather_than_dear() {
    let crypt = Crypt::parse("$5$s$5B8vYYiY.CVt1RlTTf8KbXBH3hsxY/GNooZaBBGWEc8").unwrap();
    assert!(!crypt.verify(&"x".repeat(1 << 20)));
}

#[test]
fn what_is_no_hash_is_refused_with_what_to_do() {
    let cases = [
        ("secret", "openssl passwd -6"),
        ("$2y$10$abc", "bcrypt takes more"),
        ("$5$salt", "cut short"),
        ("$6$rounds=5000", "cut short"),
        ("$5$salt$short", "43 characters"),
        ("$6$rounds=x$salt$hash", "not a number"),
        ("$6$rounds=999$salt$hash", "from 1000 to 10000"),
        ("$6$rounds=999999999$salt$hash", "from 1000 to 10000"),
        ("$5$$5B8vYYiY.CVt1RlTTf8KbXBH3hsxY/GNooZaBBGWEc8", "1 to 16"),
    ];
    for (text, want) in cases {
        let error = Crypt::parse(text).unwrap_err();
        assert!(error.contains(want), "{text}: {error}");
    }
}
