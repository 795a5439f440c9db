//! `docs/testing.md` shows what runs: its code is that of the examples, and the examples are as short as it says.
#![allow(clippy::expect_used, clippy::panic, reason = "tests report by panicking")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// An example has fewer lines than this.
const MOST_LINES: usize = 40;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in the workspace").to_path_buf()
}

fn read(path: &str) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The examples of the guide, by path as the page names them.
fn examples() -> BTreeMap<String, String> {
    let folder = fs::read_dir(root().join("examples/testing")).expect("examples/testing is there");
    let named = folder.map(|entry| {
        let name = entry.expect("the folder can be read").file_name();
        let path = format!("examples/testing/{}", name.to_str().expect("names are ASCII"));
        let text = read(&path);
        (path, text)
    });
    named.collect()
}

/// A block of Rust on the page, and the example that was named last before it.
#[derive(Debug, PartialEq)]
struct Block {
    example: Option<String>,
    lines: Vec<String>,
}

fn blocks(page: &str) -> Vec<Block> {
    let (mut blocks, mut example, mut open) = (Vec::new(), None, None::<Block>);
    for line in page.lines() {
        match (&mut open, line) {
            (None, "```rust") => open = Some(Block { example: example.clone(), lines: Vec::new() }),
            (None, prose) => {
                let named = prose
                    .split('`')
                    .find(|word| word.starts_with("examples/testing/") && word.ends_with(".rs"));
                example = named.map(str::to_owned).or(example);
            }
            (Some(_), "```") => blocks.extend(open.take()),
            (Some(block), code) => block.lines.push(code.to_owned()),
        }
    }
    assert_eq!(open, None, "a block of code has no end");
    blocks
}

/// Whether the lines stand in the text one after the other, all moved to the right by the same number of spaces.
fn holds(text: &str, lines: &[String]) -> bool {
    let text: Vec<&str> = text.lines().collect();
    let first = lines.first().expect("a block has lines");
    text.windows(lines.len()).any(|window| {
        let Some(indent) = window[0].strip_suffix(first.as_str()).filter(|indent| indent.trim().is_empty())
        else {
            return false;
        };
        window.iter().zip(lines).all(|(text, line)| match line.is_empty() {
            true => text.is_empty(),
            false => text.strip_prefix(indent) == Some(line),
        })
    })
}

#[test]
fn every_block_of_the_guide_is_a_part_of_the_example_it_names() {
    let (page, examples) = (read("docs/testing.md"), examples());
    let blocks = blocks(&page);
    for Block { example, lines } in &blocks {
        let example = example.as_ref().unwrap_or_else(|| panic!("no example is named before {lines:#?}"));
        let text =
            examples.get(example).unwrap_or_else(|| panic!("the page names {example}, which is not there"));
        assert!(
            holds(text, lines),
            "{example} does not hold this, as it stands on the page:\n{}",
            lines.join("\n")
        );
    }
    for example in examples.keys() {
        assert!(
            blocks.iter().any(|block| block.example.as_ref() == Some(example)),
            "the page shows nothing of {example}"
        );
    }
}

#[test]
fn every_example_of_the_guide_is_short_and_can_be_run_by_its_name() {
    let (page, manifest) = (read("docs/testing.md"), read("examples/Cargo.toml"));
    let examples = examples();
    assert!(examples.len() >= 10, "{:?}", examples.keys());
    for (path, text) in &examples {
        let lines = text.lines().count();
        assert!(lines < MOST_LINES, "{path} has {lines} lines, and must have fewer than {MOST_LINES}");
        let file = path.trim_start_matches("examples/");
        let name = file.trim_start_matches("testing/").trim_end_matches(".rs");
        let entry = format!("[[example]]\nname = \"{name}\"\npath = \"{file}\"\n");
        assert!(manifest.contains(&entry), "examples/Cargo.toml does not have {entry}");
        assert!(page.contains(&format!("| `{name}` |")), "the table of the page does not have {name}");
    }
}

/// The names of the examples in a folder; each is short, and can be run by its name.
fn short_and_named(folder: &str) -> Vec<String> {
    let manifest = read("examples/Cargo.toml");
    let entries = fs::read_dir(root().join("examples").join(folder)).expect("the folder is there");
    let named = entries.map(|entry| {
        let file = entry.expect("the folder can be read").file_name();
        let name = file.to_str().and_then(|file| file.strip_suffix(".rs")).expect("only Rust lies there");
        let lines = read(&format!("examples/{folder}/{name}.rs")).lines().count();
        assert!(lines < MOST_LINES, "{name} has {lines} lines, and must have fewer than {MOST_LINES}");
        let entry = format!("[[example]]\nname = \"{name}\"\npath = \"{folder}/{name}.rs\"\n");
        assert!(manifest.contains(&entry), "examples/Cargo.toml does not have {entry}");
        name.to_owned()
    });
    named.collect()
}

#[test]
fn every_example_of_sending_is_short_and_can_be_run_by_its_name() {
    assert!(short_and_named("producing").len() >= 7);
}

#[test]
fn every_example_of_administering_is_short_can_be_run_by_its_name_and_stands_in_the_guide() {
    let (page, names) = (read("docs/admin.md"), short_and_named("administering"));
    assert!(names.len() >= 3, "{names:?}");
    for name in names {
        assert!(
            page.contains(&format!("`examples/administering/{name}.rs`")),
            "docs/admin.md does not name {name}"
        );
    }
}

#[test]
fn links_within_the_guide_lead_to_its_headings() {
    let page = read("docs/testing.md");
    let anchor = |heading: &str| heading.to_lowercase().replace(' ', "-").replace(['.', '#'], "");
    let headings: Vec<String> =
        page.lines().filter_map(|line| line.strip_prefix("## ")).map(anchor).collect();
    let links: Vec<&str> = page.split("](#").skip(1).filter_map(|rest| rest.split(')').next()).collect();
    assert!(!links.is_empty());
    for link in links {
        assert!(headings.iter().any(|heading| heading == link), "#{link} is not one of {headings:?}");
    }
}

#[test]
fn a_block_is_found_only_where_every_line_of_it_stands() {
    let block = |lines: &[&str]| lines.iter().map(|line| (*line).to_owned()).collect::<Vec<_>>();
    let text = "fn main() {\n    one();\n    if two {\n\n        three();\n    }\n}\n";
    assert!(holds(text, &block(&["one();", "if two {", "", "    three();", "}"])));
    assert!(holds(text, &block(&["    if two {"])));
    assert!(!holds(text, &block(&["one();", "    if two {"])), "moved by different amounts");
    assert!(!holds(text, &block(&["one();", "three();"])), "a line between them is left out");
    assert!(!holds(text, &block(&["ne();"])), "half a line");
}
