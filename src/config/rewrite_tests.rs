use super::*;

#[derive(Debug, Deserialize)]
struct Upstream {
    rewrite: RewriteConfig,
}

fn read(text: &str) -> Result<RewriteConfig, String> {
    toml::from_str::<Upstream>(text)
        .map(|upstream| upstream.rewrite)
        .map_err(|error| error.message().to_owned())
}

fn rule(text: &str) -> Result<RewriteRule, String> {
    read(&format!("[[rewrite.rules]]\n{text}")).map(|mut config| config.rules.remove(0))
}

#[test]
fn a_switch_or_a_table_is_read() {
    assert!(read("rewrite = true").unwrap().enabled);
    assert!(!read("rewrite = false").unwrap().enabled);
    let config = read("[rewrite]\nmax_ratio = 20\nscript = false").unwrap();
    assert!(config.enabled && !config.script);
    assert_eq!((config.max_ratio, config.max_body_bytes, config.memory), (20, 2 << 20, 4 << 20));
}

#[test]
fn what_is_wrong_is_said_before_the_start() {
    let cases = [
        ("rewrite = 3", "expected true, false or a table"),
        ("[rewrite]\nenable = true", "unknown field `enable`"),
        ("[rewrite]\nmax_ratio = 1", "max_ratio: expected 2 to 10000"),
        ("[rewrite]\nmemory = 1", "memory: expected 65536"),
        ("[rewrite]\nmax_body_bytes = 0", "max_body_bytes: expected 1024"),
    ];
    for (text, expected) in cases {
        let error = read(text).unwrap_err();
        assert!(error.contains(expected), "{text}: {error}");
    }
}

#[test]
fn a_rule_says_what_it_finds_and_what_that_becomes() {
    let text = "types = ['javascript', 'css']\npaths = ['/a/*']\nfind = '(x)(y)'\n\
                replace = '{prefix}/$2${1}$$ {a}'";
    let RewriteRule { types, paths, find: Find::Text { replace, .. } } = rule(text).unwrap() else {
        panic!("a text rule");
    };
    assert_eq!(types, [BodyKind::Javascript, BodyKind::Css]);
    assert!(paths[0].matches("/a/b/c") && paths[0].matches("/a") && !paths[0].matches("/ab/c"));
    let text = |text: &str| Part::Text(text.to_owned());
    let expected = [Part::Prefix, text("/"), Part::Group(2), Part::Group(1), text("$ {a}")];
    assert_eq!(replace.0, expected);

    let find = rule("types = ['json']\npointer = '/a/*/b~1c'").unwrap().find;
    let Find::Json { place: JsonPlace::Pointer(segments), change: JsonChange::Url } = find else {
        panic!("a pointer rule");
    };
    assert_eq!(segments, [Some("a".to_owned()), None, Some("b/c".to_owned())]);
}

#[test]
fn a_rule_that_cannot_work_is_refused() {
    let long = format!("types = ['css']\nfind = '{}'\nreplace = ''", "a".repeat(MAX_PATTERN + 1));
    let cases = [
        ("types = []\nfind = 'a'\nreplace = ''", "types: expected at least one"),
        ("types = ['xml']\nfind = 'a'\nreplace = ''", "unknown variant `xml`"),
        ("types = ['css']", "expected find, pointer or key"),
        ("types = ['css']\nfind = 'a'", "replace: expected a text beside find"),
        ("types = ['css']\nfind = '('\nreplace = ''", "expected a regular expression"),
        ("types = ['css']\nfind = 'a*'\nreplace = ''", "does not match the empty text"),
        ("types = ['css']\nfind = 'a'\nreplace = '$1'", "the pattern has no such group"),
        ("types = ['css']\nfind = 'a'\nreplace = '$x'", "expected $1"),
        ("types = ['css']\npointer = '/a'", "expected [\"json\"]"),
        ("types = ['json']\npointer = 'a'", "expected a JSON pointer"),
        ("types = ['json']\npointer = '/a'\nkey = 'a'", "not both"),
        ("types = ['css']\npaths = ['a']\nfind = 'a'\nreplace = ''", "paths: expected a path"),
        ("types = ['css']\nfind = 'a'\nreplace = ''\nwith = 1", "unknown field `with`"),
        // Hostile patterns: too large once compiled, nested too deep, too long.
        ("types = ['css']\nfind = '(?:a{1,500}){1,500}b'\nreplace = ''", "a smaller pattern"),
        ("types = ['css']\nfind = '.{9000}x'\nreplace = ''", "a smaller pattern"),
        ("types = ['css']\nfind = '((((((a{9}){9}){9}){9}){9}){9})'\nreplace = ''", "smaller"),
        (long.as_str(), "a pattern of 1 to 2048 bytes"),
    ];
    for (text, expected) in cases {
        let error = rule(text).unwrap_err();
        assert!(error.contains(expected), "{text}: {error}");
    }
    let deep =
        format!("types = ['css']\nfind = '{}a{}'\nreplace = ''", "(".repeat(70), ")".repeat(70));
    assert!(rule(&deep).unwrap_err().contains("expected a regular expression"));
}
