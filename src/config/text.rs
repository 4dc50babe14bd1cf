//! The two text formats, flattened to names and values: TOML and `.env`.

use super::problem::Problem;

/// One name with its value, as the operator wrote it.
pub(super) struct Given {
    pub name: String,
    pub text: String,
}

/// The settings of a TOML file, as `section.key`, and the tables of
/// `[[upstreams]]`. Lists become comma-separated
/// text; numbers and truth values their usual text.
pub(super) fn from_toml(text: &str, problems: &mut Vec<Problem>) -> (Vec<Given>, Vec<toml::Table>) {
    let (mut given, mut upstreams) = (vec![], vec![]);
    match text.parse::<toml::Table>() {
        Ok(mut table) => {
            upstreams = take_upstreams(&mut table, problems);
            flatten("", table, &mut given, problems);
        }
        Err(error) => {
            // `Display` of the error quotes the line, which may hold a secret.
            let line = error.span().map_or(1, |span| line_of(text, span.start));
            problems.push(Problem::new(
                format!("configuration file, line {line}"),
                format!("not valid TOML: {}", error.message()),
            ));
        }
    }
    (given, upstreams)
}

/// The tables of `[[upstreams]]`.
fn take_upstreams(table: &mut toml::Table, problems: &mut Vec<Problem>) -> Vec<toml::Table> {
    let tables = match table.remove("upstreams") {
        None => return vec![],
        Some(toml::Value::Array(values)) => values.into_iter().map(|value| match value {
            toml::Value::Table(table) => Some(table),
            _ => None,
        }),
        Some(_) => return wrong_upstreams(problems),
    };
    tables.collect::<Option<_>>().unwrap_or_else(|| wrong_upstreams(problems))
}

fn wrong_upstreams(problems: &mut Vec<Problem>) -> Vec<toml::Table> {
    problems.push(Problem::new("upstreams", "expected tables: [[upstreams]]"));
    vec![]
}

fn flatten(prefix: &str, table: toml::Table, given: &mut Vec<Given>, problems: &mut Vec<Problem>) {
    for (key, value) in table {
        let name = if prefix.is_empty() { key } else { format!("{prefix}.{key}") };
        match value {
            toml::Value::Table(table) => flatten(&name, table, given, problems),
            // Such tables are settings of another version; naming them is enough.
            toml::Value::Array(items) if items.iter().all(toml::Value::is_table) => {
                given.push(Given { name, text: "tables".to_owned() });
            }
            toml::Value::Array(items) => match items.iter().map(scalar).collect::<Option<Vec<_>>>()
            {
                Some(items) => given.push(Given { name, text: items.join(",") }),
                None => problems.push(Problem::new(name, "expected a list of text or numbers")),
            },
            value => match scalar(&value) {
                Some(text) => given.push(Given { name, text }),
                None => problems.push(Problem::new(name, "expected text, a number or true/false")),
            },
        }
    }
}

pub(super) fn scalar(value: &toml::Value) -> Option<String> {
    match value {
        toml::Value::String(text) => Some(text.clone()),
        toml::Value::Integer(number) => Some(number.to_string()),
        toml::Value::Float(number) => Some(number.to_string()),
        toml::Value::Boolean(truth) => Some(truth.to_string()),
        _ => None,
    }
}

fn line_of(text: &str, at: usize) -> usize {
    text.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1
}

/// The lines of a `.env` file: `NAME=value`, optionally after `export`. In
/// double quotes `\n`, `\"` and `\\` stand for what they usually do; in single
/// quotes nothing does; without quotes ` #` begins a comment.
pub(super) fn from_dotenv(text: &str, problems: &mut Vec<Problem>) -> Vec<Given> {
    let mut given = vec![];
    for (at, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let line = line.strip_prefix("export ").unwrap_or(line);
        match line.split_once('=').and_then(|(name, value)| Some((name, unquote(value.trim())?))) {
            Some((name, text)) => given.push(Given { name: name.trim().to_owned(), text }),
            None => problems.push(Problem::new(
                format!(".env, line {}", at + 1),
                "expected NAME=value, with quotes that are closed",
            )),
        }
    }
    given
}

fn unquote(value: &str) -> Option<String> {
    if let Some(rest) = value.strip_prefix('\'') {
        let (text, after) = rest.split_once('\'')?;
        return ends(after).then(|| text.to_owned());
    }
    let Some(rest) = value.strip_prefix('"') else {
        let comment = if value.starts_with('#') { Some(0) } else { value.find(" #") };
        return Some(value[..comment.unwrap_or(value.len())].trim_end().to_owned());
    };
    let mut text = String::new();
    let mut chars = rest.chars();
    loop {
        match chars.next()? {
            '"' => return ends(chars.as_str()).then_some(text),
            '\\' => match chars.next()? {
                'n' => text.push('\n'),
                escaped @ ('"' | '\\' | '$') => text.push(escaped),
                other => text.extend(['\\', other]),
            },
            other => text.push(other),
        }
    }
}

fn ends(after: &str) -> bool {
    let after = after.trim_start();
    after.is_empty() || after.starts_with('#')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dotenv(text: &str) -> (Vec<(String, String)>, Vec<String>) {
        let mut problems = vec![];
        let given = from_dotenv(text, &mut problems);
        (
            given.into_iter().map(|given| (given.name, given.text)).collect(),
            problems.into_iter().map(|problem| problem.name).collect(),
        )
    }

    #[test]
    fn dotenv_reads_what_shells_and_compose_write() {
        let cases = [
            ("A=b", "b"),
            ("A = b c ", "b c"),
            ("export A=b", "b"),
            ("A=b # comment", "b"),
            ("A=b#c", "b#c"),
            ("A=# comment", ""),
            ("A='b # c' # comment", "b # c"),
            (r#"A="x\ny\"\\\z""#, "x\ny\"\\\\z"),
            ("A=", ""),
            ("A=b=c", "b=c"),
        ];
        for (line, value) in cases {
            assert_eq!(dotenv(line).0, [("A".to_owned(), value.to_owned())], "{line}");
        }
        assert_eq!(dotenv("\n# A=b\n").0, []);
    }

    #[test]
    fn a_broken_line_is_named_by_its_number() {
        assert_eq!(
            dotenv("A=b\nhunter2\nB=\"open\nC='x'y").1,
            [".env, line 2", ".env, line 3", ".env, line 4"]
        );
    }

    #[test]
    fn a_broken_file_is_not_quoted() {
        let mut problems = vec![];
        from_toml("[auth]\nsecret_key = hunter2hunter2\n", &mut problems);
        let text = problems[0].to_string();
        assert!(text.starts_with("configuration file, line 2: not valid TOML"), "{text}");
        assert!(!text.contains("hunter2"), "{text}");
    }
}
