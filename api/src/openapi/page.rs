//! The document as a page for people: one piece of HTML, no scripts, nothing from elsewhere.

use std::fmt::Write;

use serde_json::{Map, Value};

use super::example;

/// Nothing but this page's own style.
pub(crate) const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; \
                                 frame-ancestors 'none'";

const STYLE: &str = "\
:root{color-scheme:light dark}
body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:0 auto;padding:1rem}
code,pre{font-family:ui-monospace,monospace;font-size:.9em}
pre{overflow-x:auto;padding:.6rem;border:1px solid #8884;border-radius:4px}
table{border-collapse:collapse;width:100%}
th,td{text-align:left;vertical-align:top;padding:.2rem .6rem .2rem 0;border-bottom:1px solid #8883}
article{border-top:1px solid #8886;margin-top:1.5rem}
nav li{list-style:none}
summary{cursor:pointer}
b{display:inline-block;min-width:4.5em}";

/// What the page leads with, in the document's own order of sections.
pub(super) fn of(document: &Value) -> String {
    let mut page = Page {
        document,
        html: String::new(),
    };
    page.whole();
    page.html
}

struct Page<'a> {
    document: &'a Value,
    html: String,
}

/// Method, path and operation.
type Shown<'a> = (String, &'a str, &'a Value);

impl<'a> Page<'a> {
    fn whole(&mut self) {
        let info = &self.document["info"];
        let (title, version) = (escape(text(&info["title"])), escape(text(&info["version"])));
        self.put(&format!(
            "<!doctype html>\n<html lang=\"en\">\n<head><meta charset=\"utf-8\">\
             <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\
             <title>{title} {version}</title><style>{STYLE}</style></head>\n<body>\n\
             <header><h1>{title} {version}</h1>\n<p>{}</p>\n\
             <p>For programs: <a href=\"/openapi.json\">/openapi.json</a></p></header>\n",
            prose(text(&info["description"]))
        ));
        let sections = self.sections();
        self.contents(&sections);
        self.put("<main>\n");
        for (tag, operations) in &sections {
            self.put(&format!("<section>\n<h2 id=\"{}\">{}</h2>\n", anchor(tag), escape(tag)));
            operations.iter().for_each(|operation| self.operation(operation));
            self.put("</section>\n");
        }
        self.schemas();
        self.put("</main>\n</body>\n</html>\n");
    }

    /// The operations by tag.
    fn sections(&self) -> Vec<(&'a str, Vec<Shown<'a>>)> {
        let document = self.document;
        let all = || {
            object(&document["paths"]).flat_map(|(path, item)| {
                object(item).map(move |(method, operation)| (method.to_ascii_uppercase(), path.as_str(), operation))
            })
        };
        let tags = document["tags"].as_array().into_iter().flatten();
        tags.map(|tag| {
            let name = text(&tag["name"]);
            let mut operations: Vec<_> = all().filter(|(_, _, one)| text(&one["tags"][0]) == name).collect();
            // The first prefix is the one to use; the other repeats it.
            operations.sort_by_key(|(_, path, _)| path.starts_with("/api/"));
            (name, operations)
        })
        .collect()
    }

    fn contents(&mut self, sections: &[(&str, Vec<Shown<'_>>)]) {
        self.put("<nav>\n");
        for (tag, operations) in sections {
            self.put(&format!(
                "<h3><a href=\"#{}\">{}</a></h3>\n<ul>\n",
                anchor(tag),
                escape(tag)
            ));
            for (method, path, operation) in operations {
                self.put(&format!(
                    "<li><a href=\"#{}\"><b>{method}</b> <code>{}</code></a> {}</li>\n",
                    text(&operation["operationId"]),
                    escape(path),
                    escape(text(&operation["summary"]))
                ));
            }
            self.put("</ul>\n");
        }
        self.put("<h3><a href=\"#schemas\">Schemas</a></h3>\n</nav>\n");
    }

    fn operation(&mut self, (method, path, operation): &Shown<'a>) {
        self.put(&format!(
            "<article id=\"{}\">\n<h3><b>{method}</b> <code>{}</code></h3>\n<p>{}. {}</p>\n",
            text(&operation["operationId"]),
            escape(path),
            escape(text(&operation["summary"]).trim_end_matches('.')),
            prose(text(&operation["description"]))
        ));
        self.parameters(operation);
        if let Some((_, content)) = object(&operation["requestBody"]["content"]).next() {
            let needed = operation["requestBody"]["required"] == true;
            self.put(if needed {
                "<h4>Body</h4>\n"
            } else {
                "<h4>Body, which may be left away</h4>\n"
            });
            self.body(content);
        }
        self.put("<h4>Answers</h4>\n<table>\n");
        for (status, response) in object(&operation["responses"]) {
            self.answer(status, self.resolved(response));
        }
        self.put("</table>\n</article>\n");
    }

    fn parameters(&mut self, operation: &Value) {
        self.put("<details><summary>Parameters and headers</summary>\n<table>\n");
        for parameter in operation["parameters"].as_array().into_iter().flatten() {
            let parameter = self.resolved(parameter);
            self.put(&format!(
                "<tr><td><code>{}</code></td><td>{}</td><td>{}</td><td>{}</td></tr>\n",
                escape(text(&parameter["name"])),
                escape(text(&parameter["in"])),
                self.type_of(&parameter["schema"]),
                prose(text(&parameter["description"]))
            ));
        }
        self.put("</table></details>\n");
    }

    /// What the schema is, and an example of it.
    fn body(&mut self, content: &Value) {
        let schema = &content["schema"];
        let example = serde_json::to_string_pretty(&example::of(schema, self.document)).unwrap_or_default();
        self.put(&format!(
            "<p>{}</p>\n<pre>{}</pre>\n",
            self.type_of(schema),
            escape(&example)
        ));
    }

    fn answer(&mut self, status: &str, response: &Value) {
        let content = object(&response["content"]).next();
        let what = match content {
            Some((media_type, _)) if media_type == "application/problem+json" => {
                "<a href=\"#schema-Problem\">Problem</a>".to_owned()
            }
            Some((media_type, content)) if media_type == "application/json" => self.type_of(&content["schema"]),
            Some((media_type, _)) => escape(media_type),
            None => String::new(),
        };
        self.put(&format!(
            "<tr><td>{status}</td><td>{what}</td><td>{}</td></tr>\n",
            prose(text(&response["description"]))
        ));
    }

    fn schemas(&mut self) {
        self.put("<section>\n<h2 id=\"schemas\">Schemas</h2>\n");
        for (name, schema) in object(&self.document["components"]["schemas"]) {
            self.put(&format!(
                "<article id=\"schema-{name}\">\n<h3>{name}</h3>\n<p>{}</p>\n",
                prose(text(&schema["description"]))
            ));
            let required: Vec<&str> = schema["required"].as_array().into_iter().flatten().map(text).collect();
            if schema["properties"].is_object() {
                self.put("<table>\n");
                for (field, of_field) in object(&schema["properties"]) {
                    let optional = if required.contains(&field.as_str()) {
                        ""
                    } else {
                        "optional"
                    };
                    self.put(&format!(
                        "<tr><td><code>{field}</code></td><td>{}</td><td>{optional}</td><td>{}</td></tr>\n",
                        self.type_of(of_field),
                        prose(text(&of_field["description"]))
                    ));
                }
                self.put("</table>\n");
            } else {
                self.put(&format!("<p>{}</p>\n", self.type_of(schema)));
            }
            let example = serde_json::to_string_pretty(&example::of(schema, self.document)).unwrap_or_default();
            self.put(&format!("<pre>{}</pre>\n</article>\n", escape(&example)));
        }
        self.put("</section>\n");
    }

    /// In a few words, with a link where it has a name.
    fn type_of(&self, schema: &Value) -> String {
        if let Some(name) = schema["$ref"].as_str().and_then(|path| path.rsplit('/').next()) {
            return format!("<a href=\"#schema-{name}\">{name}</a>");
        }
        if let Some(choices) = schema["anyOf"].as_array() {
            let choices: Vec<String> = choices.iter().map(|choice| self.type_of(choice)).collect();
            return choices.join(" or ");
        }
        if let Some(words) = schema["enum"].as_array() {
            let words: Vec<String> = words
                .iter()
                .map(|word| format!("<code>{}</code>", escape(&word.to_string())))
                .collect();
            return words.join(", ");
        }
        if schema["type"] == "array" {
            return format!("array of {}", self.type_of(&schema["items"]));
        }
        let mut words = match &schema["type"] {
            Value::Array(types) => types.iter().map(text).collect::<Vec<_>>().join(", "),
            one => escape(text(one)),
        };
        for (bound, word) in [
            ("minLength", "at least"),
            ("maxLength", "at most"),
            ("minimum", "from"),
            ("maximum", "to"),
            ("default", "default"),
        ] {
            if let Some(value) = schema.get(bound) {
                let unit = if bound.ends_with("Length") { " characters" } else { "" };
                let _ = write!(words, ", {word} {}{unit}", escape(&value.to_string()));
            }
        }
        words
    }

    fn resolved(&self, value: &'a Value) -> &'a Value {
        super::resolved(value, self.document)
    }

    fn put(&mut self, html: &str) {
        self.html.push_str(html);
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn object(value: &Value) -> serde_json::map::Iter<'_> {
    static NOTHING: std::sync::LazyLock<Map<String, Value>> = std::sync::LazyLock::new(Map::new);
    value.as_object().unwrap_or(&NOTHING).iter()
}

fn anchor(tag: &str) -> String {
    format!("tag-{}", tag.to_ascii_lowercase().replace(' ', "-"))
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

/// Text in which `code` is marked as in Markdown.
fn prose(text: &str) -> String {
    let mut html = String::new();
    for (index, part) in escape(text).split('`').enumerate() {
        if index > 0 {
            html.push_str(if index % 2 == 1 { "<code>" } else { "</code>" });
        }
        html.push_str(part);
    }
    html
}
