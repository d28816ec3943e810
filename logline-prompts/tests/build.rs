//! Prompts as a pure function: the order of blocks, variables, faults with their place, and templates that attack.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests may")]

use logline_core::Hash;
use logline_prompts::{Block, BuildError, Kind, MAX_TEXT_BYTES, Rank, Variable, Variant, build};
use proptest::prelude::*;
use serde_json::{Value, json};

fn plain(template: &str) -> Block {
    Block::new("b", Rank::Task, template)
}

fn built(block: Block, vars: Value) -> Result<String, BuildError> {
    build(&Variant::new("f@v1"), &[block], &vars).map(|built| built.text)
}

fn one(kind: Kind, template: &str, value: Value) -> Result<String, BuildError> {
    built(plain(template).variable("x", Variable::new(kind)), json!({"x": value}))
}

#[test]
fn blocks_stand_by_rank_then_priority_then_id() {
    let block = |name: &str, rank, priority| {
        let mut block = Block::new(name, rank, name);
        block.priority = priority;
        block
    };
    let mut twins = [block("twin-a", Rank::App, 90), block("twin-b", Rank::App, 90)];
    twins.sort_by_key(|block| block.id);
    let all = vec![
        block("task", Rank::Task, 1000),
        twins[1].clone(),
        block("app-high", Rank::App, 91),
        block("doctrine", Rank::Doctrine, -5),
        twins[0].clone(),
        block("product", Rank::Product, 0),
    ];
    let variant = Variant::new("support@v1").prior("Be kind.");
    let expected = format!("Be kind.\n\ndoctrine\n\nproduct\n\napp-high\n\n{}\n\n{}\n\ntask", twins[0].name, twins[1].name);
    let first = build(&variant, &all, &Value::Null).unwrap();
    assert_eq!(first.text, expected);
    assert_eq!(first.compiled_hash, Hash::of(expected.as_bytes()));
    let mut turned = all;
    for _ in 0..6 {
        turned.rotate_left(1);
        assert_eq!(build(&variant, &turned, &Value::Null).unwrap(), first);
    }
}

#[test]
fn a_value_is_the_callers_or_the_variants_or_the_blocks() {
    let mut with_default = Variable::new(Kind::Text);
    with_default.default = Some(json!("block"));
    let block = plain("{{ x }}").variable("x", with_default);
    let plain_variant = Variant::new("f@v1");
    let with_value = Variant::new("f@v1").var("x", json!("variant"));
    let text = |variant: &Variant, vars: Value| build(variant, std::slice::from_ref(&block), &vars).unwrap().text;
    assert_eq!(text(&plain_variant, Value::Null), "block");
    assert_eq!(text(&with_value, json!({})), "variant");
    assert_eq!(text(&with_value, json!({"x": "caller"})), "caller");
}

#[test]
fn values_are_written_as_they_are() {
    assert_eq!(
        one(Kind::Text, "[{{ x }}]", json!("<b>{{ y }}</b> {% if %}")).unwrap(),
        "[<b>{{ y }}</b> {% if %}]",
        "a value is no template"
    );
    assert_eq!(one(Kind::Integer, "{{ x }}", json!(9_007_199_254_740_991_i64)).unwrap(), "9007199254740991");
    assert_eq!(one(Kind::Boolean, "{% if x %}yes{% else %}no{% endif %}", json!(false)).unwrap(), "no");
    assert_eq!(one(Kind::Texts, "{% for item in x %}- {{ item }}\n{% endfor %}", json!(["a", "b"])).unwrap(), "- a\n- b");
    assert_eq!(one(Kind::Texts, "{{ x|join(', ') }} ({{ x|length }})", json!(["a", "b"])).unwrap(), "a, b (2)");
    let rows = json!([{"n": 2, "name": "Ada"}, {"n": 1, "name": "Bo"}]);
    assert_eq!(
        one(Kind::Rows, "{% for row in x %}{{ row.name }}={{ row.n }};{% endfor %}", rows.clone()).unwrap(),
        "Ada=2;Bo=1;"
    );
    assert_eq!(one(Kind::Rows, "{{ x|json }}", rows).unwrap(), r#"[{"n":2,"name":"Ada"},{"n":1,"name":"Bo"}]"#);
    assert_eq!(one(Kind::Text, "{{ x|upper }}{{ x|lower|trim }}", json!(" Éß ")).unwrap(), " ÉSS éß");
    assert_eq!(one(Kind::Text, "{# a note #}{% raw %}{{ x * 3 }}{% endraw %}{{ x }}", json!("!")).unwrap(), "{{ x * 3 }}!");
}

#[test]
fn a_block_without_text_is_left_out() {
    let on_request = plain("{% if x %}Be brief.{% endif %}").variable("x", Variable::new(Kind::Boolean));
    let blocks = [Block::new("first", Rank::Doctrine, "First.\n\n"), on_request];
    let text = |x: bool| build(&Variant::new("f@v1"), &blocks, &json!({"x": x})).unwrap().text;
    assert_eq!((text(true).as_str(), text(false).as_str()), ("First.\n\nBe brief.", "First."));
    assert_eq!(built(plain("  \n"), json!({})), Err(BuildError::Empty));
}

#[test]
fn faults_name_the_block_and_the_line() {
    let x = || Variable::new(Kind::Text);
    let message = |block: Block, vars: Value| built(block, vars).unwrap_err().to_string();
    for (template, said) in [
        ("a\nb\n{{ x", "block `b`, line 3: a tag is not closed"),
        ("a\n{% if x %}", "block `b`, line"),
        ("a\n{{ x|reverse }}", "line 2"),
        ("{{ x }}\n\n{% include 'other' %}", "line 3: `{% include %}` is not available"),
        ("{% set y = x %}", "`{% set %}` is not available"),
        ("{% macro m() %}{% endmacro %}", "`{% macro %}` is not available"),
        ("{{ x }}\n{{ range(3) }}", "uses `range`"),
        ("{{ x.__class__ }}", "line 1: it uses what is not there"),
        ("{{ x * 9 }}", "line 1: the operator `*` is not available"),
        ("\n{{ x ~ x }}", "line 2: the operator `~` is not available"),
        ("{{ x + x }}", "the operator `+` is not available"),
        ("{% for y in x * 9 %}{% endfor %}", "the operator `*`"),
        ("{% raw %}{{ x }}", "`raw` is not closed"),
        ("{{ 'it\\'s' }}{{ x ~ '\"' }}", "the operator `~`"),
    ] {
        let found = message(plain(template).variable("x", x()), json!({"x": "v"}));
        assert!(found.contains(said), "{template:?}: {found}");
    }
    assert!(message(plain("{{ y }}"), json!({})).contains("uses `y`, which is not among its variables"));
    assert!(message(plain("text").variable("x", x()), json!({"x": "v"})).contains("has the variable `x` and does not use it"));
    assert!(message(plain("{{ x }}").variable("x", x()), json!({})).contains("needs a value for `x`"));
    assert!(message(plain("text"), json!({"z": 1})).contains("the caller gives a value for `z`"));
    assert!(matches!(built(plain("text"), json!([])), Err(BuildError::NoObject)));
    let variant = Variant::new("f@v1").var("z", json!(1));
    assert!(
        build(&variant, &[plain("text")], &Value::Null).unwrap_err().to_string().contains("the variant gives a value for `z`")
    );
}

#[test]
fn a_value_of_another_type_is_refused_and_not_shown() {
    for (kind, wrong) in [
        (Kind::Text, json!(42_424_242)),
        (Kind::Text, json!(null)),
        (Kind::Integer, json!(4_242.5)),
        (Kind::Integer, json!("42424242")),
        (Kind::Number, json!("42424242")),
        (Kind::Boolean, json!("42424242")),
        (Kind::Texts, json!(["ok", 42_424_242])),
        (Kind::Texts, json!("42424242")),
        (Kind::Rows, json!([{"a": {"b": 42_424_242}}])),
        (Kind::Rows, json!({"a": 42_424_242})),
        (Kind::Text, json!("42424242".repeat(3000))),
    ] {
        let error = one(kind, "{{ x }}", wrong.clone()).unwrap_err();
        assert!(matches!(error, BuildError::Value { .. }), "{kind:?} {error}");
        assert!(!error.to_string().contains("4242"), "a message contains no value: {error}");
    }
}

/// Whatever a template does with large values, it ends soon and its text is bounded.
#[test]
fn templates_that_make_much_out_of_little_are_stopped() {
    let many = json!(vec!["xxxxxxxx"; 1000]);
    for template in [
        "{% for a in x %}{% for b in x %}{% for c in x %}{{ a }}{% endfor %}{% endfor %}{% endfor %}",
        "{% for a in x %}{{ x|join(', ') }}{% endfor %}",
        "{% for a in x %}{% for b in x %}{% for c in x %}{% endfor %}{% endfor %}{% endfor %}",
        "{{ x|join(x|join(x|join(','))) }}",
        "{% for a in x recursive %}{{ loop(x) }}{% endfor %}",
    ] {
        let error = one(Kind::Texts, template, many.clone()).unwrap_err();
        assert!(matches!(error, BuildError::Template { .. }), "{template}: {error}");
    }
    let nested = format!("{}{}", "{% if x %}".repeat(2000), "{% endif %}".repeat(2000));
    let _ = one(Kind::Text, &nested, json!("v"));
    let parentheses = format!("{{{{ {}x{} }}}}", "(".repeat(5000), ")".repeat(5000));
    assert!(one(Kind::Text, &parentheses, json!("v")).is_err());
    let blocks: Vec<_> = (0..65).map(|n| Block::new(&n.to_string(), Rank::Task, "x")).collect();
    assert!(matches!(build(&Variant::new("f@v1"), &blocks, &Value::Null), Err(BuildError::TooLarge { what: "blocks", .. })));
    let large: Vec<_> = (0..5).map(|n| Block::new(&n.to_string(), Rank::Task, &"x".repeat(60_000))).collect();
    let error = build(&Variant::new("f@v1"), &large, &Value::Null).unwrap_err();
    assert!(error.to_string().contains("too long") || error.to_string().contains(&MAX_TEXT_BYTES.to_string()), "{error}");
}

/// The engine works recursively on chains. A stack overflow would end the process, and every process that builds the block.
#[test]
fn a_template_cannot_overflow_the_stack_of_a_host() {
    let long = [
        format!("{{{{ x{} }}}}", ".a".repeat(32_000)),
        format!("{{{{ x{} }}}}", "|trim".repeat(10_000)),
        format!("{{{{ x{} }}}}", "-1".repeat(32_000)),
        format!("{{{{ x{} }}}}", " and x".repeat(10_000)),
        format!("{{{{ {}x }}}}", "not ".repeat(16_000)),
        format!("{{% if x %}}a{}{{% endif %}}", "{%elif x%}".repeat(6_000)),
        "{% if x %}".repeat(6_000),
    ];
    for template in long {
        let error = one(Kind::Text, &template, json!("a")).unwrap_err().to_string();
        assert!(error.contains("at most 300"), "{template:.40}: {error}");
    }
    // The most that is allowed, on a thread with the stack of a worker.
    let most = [
        format!("{{{{ x{} }}}}", "|trim".repeat(58)),
        format!("{{{{ x{} }}}}", " and x".repeat(49)),
        format!("{{% if x %}}a{}{{% endif %}}", "{%elif x%}".repeat(297)),
        format!("{}a{}", "{% if x %}".repeat(149), "{% endif %}".repeat(149)),
        format!("{{{{ {}x{} }}}}", "(".repeat(140), ")".repeat(140)),
    ];
    for template in most {
        let _ = one(Kind::Text, &template, json!("a"));
    }
}

#[test]
fn an_operator_cannot_hide_behind_brackets() {
    for template in [
        "{{ {'a': {'b': 1}} ~ x }}",
        "{{ ({'a': {'b': 1}} and x) * 3 }}",
        "{{ [{'a': {'b': 1}}, x * 3][1] }}",
        "{% if {'a': 1} %}{{ x }}{% endif %}",
    ] {
        let error = one(Kind::Text, template, json!("abc")).unwrap_err();
        assert!(matches!(error, BuildError::Template { .. }), "{template}: {error}");
    }
    assert!(one(Kind::Text, &format!("{{{{ x{}|length }}}}", "|json".repeat(40)), json!("'")).is_err());
}

proptest! {
    /// No template and no value panics, and what is built is built again to the same bytes.
    #[test]
    fn anything_is_built_twice_or_refused_twice(template in r"([a-z \n]|\{\{|\}\}|\{%|%\}|\{#|#\}| if | for | in |endif|endfor|x|\||'|join|\(|\)|,|\.|-|raw|endraw){0,24}", value in "\\PC{0,20}") {
        let block = plain(&template).variable("x", Variable::new(Kind::Text));
        let again = || built(block.clone(), json!({"x": value}));
        let first = again();
        prop_assert_eq!(&first, &again());
        if let Ok(text) = first {
            prop_assert!(text.len() <= MAX_TEXT_BYTES);
        }
    }
}
