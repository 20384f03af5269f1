// SPDX-License-Identifier: Apache-2.0
//! The grammar as a table, and what must hold for every text.

use proptest::prelude::*;

use super::*;

const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

fn full(text: &str) -> String {
    text.parse::<Reference>().map_or_else(|e| format!("{e}"), |r| r.to_string())
}

#[test]
fn what_is_left_out_is_filled_in_as_docker_does() {
    for (text, expected) in [
        ("debian", "docker.io/library/debian:latest"),
        ("debian:12", "docker.io/library/debian:12"),
        ("library/debian", "docker.io/library/debian:latest"),
        ("docker.io/debian", "docker.io/library/debian:latest"),
        ("index.docker.io/debian", "docker.io/library/debian:latest"),
        ("user/app:v1.0-rc_1", "docker.io/user/app:v1.0-rc_1"),
        ("localhost/app", "localhost/app:latest"),
        ("localhost:5000/app", "localhost:5000/app:latest"),
        ("127.0.0.1:5000/a/b/c:t", "127.0.0.1:5000/a/b/c:t"),
        ("[::1]:5000/app", "[::1]:5000/app:latest"),
        ("[2001:db8::1]/app", "[2001:db8::1]/app:latest"),
        ("Registry/app", "Registry/app:latest"),
        ("ghcr.io/a/b__c.d--e", "ghcr.io/a/b__c.d--e:latest"),
        ("sha256:12", "docker.io/library/sha256:12"),
    ] {
        assert_eq!(full(text), expected, "{text}");
    }
    assert_eq!(full(&format!("a@sha256:{HEX}")), format!("docker.io/library/a@sha256:{HEX}"));
    let both = format!("a:tag@sha256:{HEX}").parse::<Reference>().unwrap();
    assert_eq!((both.tag(), both.digest()), (None, Some(&Digest::of(b""))));
}

#[test]
fn what_the_grammar_forbids_is_refused() {
    let long_tag = format!("a:{}", "t".repeat(129));
    let long_name = format!("a/{}", "b".repeat(250));
    let long_text = "a".repeat(10_000);
    let sha512 = format!("a@sha512:{HEX}{HEX}");
    for text in [
        "",
        ":",
        "/",
        "@",
        "a:",
        "a@",
        ":tag",
        "A",
        "a/B",
        "a//b",
        "/a",
        "a/",
        "a/../b",
        "..",
        ".",
        "a..b",
        "a___b",
        "a._b",
        "-a",
        "a-",
        "_a",
        "a b",
        "a\nb",
        "é",
        "a:é",
        "a:-x",
        "a:.x",
        "a:b:c",
        "localhost:/a",
        "localhost:x/a",
        "localhost:65536/a",
        "localhost:1:2/a",
        "localhost:+1/a",
        "[::1/a",
        "[::g]/a",
        "[::1]x/a",
        "-h.io/a",
        "h-.io/a",
        "h..io/a",
        ".io/a",
        "h.io/",
        "h.io",
        "http://h.io/a",
        "a@sha256:00",
        "a@sha256:00@sha256:00",
        HEX,
        &long_tag,
        &long_name,
        &long_text,
        &sha512,
    ] {
        // `h.io` alone is a repository of the default registry, with a dot.
        if text == "h.io" {
            assert_eq!(full(text), "docker.io/library/h.io:latest");
            continue;
        }
        let parsed = text.parse::<Reference>();
        assert!(matches!(parsed, Err(Error::InvalidReference { .. })), "{text}: {parsed:?}");
    }
}

#[test]
fn familiar_form_drops_only_what_comes_back() {
    for (text, familiar) in [
        ("debian", "debian:latest"),
        ("user/app", "user/app:latest"),
        ("localhost/app", "localhost/app:latest"),
        ("quay.io/library/app", "quay.io/library/app:latest"),
    ] {
        assert_eq!(text.parse::<Reference>().unwrap().familiar(), familiar, "{text}");
    }
}

proptest! {
    #[test]
    fn no_text_panics_and_what_parses_parses_again(text in "[a-zA-Z0-9./:@_\\[\\]é -]{0,80}") {
        if let Ok(reference) = text.parse::<Reference>() {
            prop_assert_eq!(&reference.to_string().parse::<Reference>().unwrap(), &reference);
            prop_assert_eq!(&reference.familiar().parse::<Reference>().unwrap(), &reference);
            prop_assert!(!reference.repository().split('/').any(|p| p.is_empty() || p == ".."));
        }
    }

    #[test]
    fn every_name_of_the_grammar_parses(
        registry in "(localhost|[a-z0-9]{1,8}\\.[a-z]{2,3})(:[1-9][0-9]{0,3})?",
        repository in "[a-z0-9]{1,8}((\\.|_|__|-{1,3})[a-z0-9]{1,4}){0,2}(/[a-z0-9]{1,8}){0,3}",
        tag in "[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}",
    ) {
        let text = format!("{registry}/{repository}:{tag}");
        let reference = text.parse::<Reference>().unwrap();
        prop_assert_eq!(reference.registry(), registry);
        prop_assert_eq!(reference.tag(), Some(tag.as_str()));
        prop_assert!(reference.repository().ends_with(&repository));
    }
}
