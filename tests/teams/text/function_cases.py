"""What the functions of Helm and sprig give, by sprig's documentation: {template, text} and {template, error}."""

# ruff: noqa: E501 - rows of a table

from __future__ import annotations

from typing import Any

DATA: dict[str, Any] = {
    "name": "ada",
    "text": "one two",
    "empty": "",
    "zero": 0,
    "list": ["b", "a", "b"],
    "numbers": [3, 1, 2],
    "map": {"b": 2, "a": 1, "n": {"x": "deep"}},
    "float": 2.5,
    "json": '{"a": [1, 2.5, null, true]}',
    "html": "<b>&'\"",
    "lines": "a\nb",
    "null": None,
}

PRINTS: list[tuple[str, str]] = [
    # Text
    ("{{upper .name}}|{{lower `ABC`}}|{{title .text}}|{{untitle `Foo Bar`}}", "ADA|abc|One Two|foo bar"),
    ("{{trim `  x  `}}|{{trimAll `$` `$5$`}}|{{trimPrefix `a` `aab`}}|{{trimSuffix `b` `abb`}}", "x|5|ab|ab"),
    ("{{replace ` ` `-` .text}}|{{.text | replace `one` `1`}}", "one-two|1 two"),
    ("{{contains `tw` .text}} {{hasPrefix `one` .text}} {{hasSuffix `x` .text}}", "true true false"),
    ("{{splitList ` ` .text}} {{len (splitList `,` `a,b,c`)}} {{splitList `` `ab`}}", "[one two] 3 [a b]"),
    ("{{(split `$` `foo$bar`)._1}} {{$p := split `-` `a-b`}}{{$p._0}}{{$p._1}}", "bar ab"),
    ("{{(splitn `$` 2 `a$b$c`)._1}}", "b$c"),
    ("{{join .list `, `}}|{{join .numbers `-`}}", "b, a, b|3-1-2"),
    ("{{join `, ` .list}}|{{.numbers | join `-`}}|{{join `,` 5}}|{{join `,` .null}}", "b, a, b|3-1-2|5|"),
    ('{{quote .name}} {{quote 1 "a\\"b"}} {{squote .name 2}}', '"ada" "1" "a\\"b" \'ada\' \'2\''),
    ("{{indent 2 .lines}}|{{nindent 2 .lines}}", "  a\n  b|\n  a\n  b"),
    ("{{trunc 3 .text}}|{{trunc -3 .text}}|{{trunc 99 .name}}", "one|two|ada"),
    ("{{abbrev 5 `hello world`}}|{{abbrev 20 .name}}|{{substr 0 3 .text}}|{{substr 4 -1 .text}}", "he...|ada|one|two"),
    ("{{repeat 3 `ab`}}|{{repeat 0 `x`}}|{{nospace `a b c`}}|{{cat `a` 1 `b`}}", "ababab||abc|a 1 b"),
    ("{{wrap 5 `aaa bbb ccc`}}", "aaa\nbbb\nccc"),
    ("{{len .list | plural `one` `many`}} {{plural `one` `many` 1}}", "many one"),
    ("{{toString 1.5}}{{toString .null}}{{toStrings .numbers}}", "1.5<nil>[3 1 2]"),
    ("{{b64enc `hello`}} {{b64dec `aGVsbG8=`}}", "aGVsbG8= hello"),
    ("{{sha256sum ``}}", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
    # Lists and maps
    (
        "{{list 1 `a` nil}} {{len (list)}} {{first .list}}{{last .list}} {{rest .list}} {{initial .list}}",
        "[1 a <nil>] 0 bb [a b] [b a]",
    ),
    ("{{first (list)}}", "<no value>"),
    ("{{uniq .list}} {{sortAlpha .list}} {{reverse .numbers}} {{sortAlpha .numbers}}", "[b a] [a b b] [2 1 3] [1 2 3]"),
    (
        "{{append .list `c`}} {{prepend .list `c`}} {{concat .list .numbers}} {{.list}}",
        "[b a b c] [c b a b] [b a b 3 1 2] [b a b]",
    ),
    ("{{has 2 .numbers}} {{has 2.0 .numbers}} {{without .list `b`}} {{compact (list 0 1 ``)}}", "true true [a] [1]"),
    ("{{until 3}} {{until -2}} {{chunk 2 .numbers}}", "[0 1 2] [0 -1] [[3 1] [2]]"),
    ("{{dict `a` 1 `b` (list 2)}} {{(dict `x` (dict `y` 3)).x.y}} {{dict `a`}}", "map[a:1 b:[2]] 3 map[a:]"),
    ("{{get .map `a`}}|{{get .map `zz`}}|{{hasKey .map `a`}} {{hasKey .map `z`}}", "1||true false"),
    ("{{dig `n` `x` `none` .map}} {{dig `n` `y` `none` .map}} {{.map | dig `q` 5}}", "deep none 5"),
    ("{{keys .map}} {{values (dict `b` 2 `a` 1)}} {{keys .map | sortAlpha | join `,`}}", "[a b n] [1 2] a,b,n"),
    (
        "{{pick .map `a`}} {{omit .map `n`}} {{merge (dict `a` 9) (dict `a` 1 `c` 3)}} {{pluck `a` .map .map}}",
        "map[a:1] map[a:1 b:2] map[a:9 c:3] [1 1]",
    ),
    ("{{deepEqual .list (list `b` `a` `b`)}} {{deepEqual .map .list}} {{deepEqual 1 1.0}}", "true false true"),
    # Defaults
    (
        "{{default `x` .empty}} {{.empty | default `x`}} {{default `x` .name}} {{default 5 .zero}} {{.nothing | default `y`}}",
        "x x ada 5 y",
    ),
    ("{{empty .empty}} {{empty .name}} {{empty .zero}} {{empty (list)}} {{empty nil}}", "true false true true true"),
    ("{{coalesce .empty 0 `a` `b`}} {{ternary `yes` `no` true}} {{eq 1 2 | ternary `yes` `no`}}", "a yes no"),
    ("{{all 1 `a`}} {{any 0 ``}} {{required `it is needed` .name}}", "true false ada"),
    (
        "{{kindOf 1}} {{kindOf .list}} {{kindOf .map}} {{kindOf nil}} {{kindIs `string` .name}} {{kindOf 1.5}}",
        "int slice map invalid true float64",
    ),
    # Numbers
    ("{{add 1 2 3}} {{add `2` 1.9}} {{add1 4}} {{sub 5 7}} {{mul 2 3 4}}", "6 3 5 -2 24"),
    ("{{div 7 2}} {{div -7 2}} {{mod 7 3}} {{mod -7 3}}", "3 -3 1 -1"),
    ("{{max 1 5 3}} {{min 4 2}} {{maxf 1.5 1}} {{minf 1.5 2}}", "5 2 1.5 1.5"),
    ("{{addf 1.5 1}} {{subf 5 1.5}} {{mulf 1.5 2}} {{divf 1 4}}", "2.5 3.5 3 0.25"),
    ("{{round 123.5555 3}} {{round 2.5 0}} {{round -2.5}} {{floor 1.9}} {{ceil 1.1}}", "123.556 3 -3 1 2"),
    ("{{int `12`}} {{int 3.9}} {{int64 `x`}} {{float64 `1.5`}} {{atoi `7`}} {{abs -3}}", "12 3 0 1.5 7 3"),
    ("{{gt .float 2}} {{eq .float 2.5}} {{lt 2 .float}} {{eq 2 2.0}}", "true true true true"),
    # JSON
    ("{{toJson .map}} {{toJson .html}}", '{"a":1,"b":2,"n":{"x":"deep"}} "\\u003cb\\u003e\\u0026\'\\""'),
    ("{{toRawJson .html}} {{toJson 3.0}} {{toJson .null}}", '"<b>&\'\\"" 3 null'),
    ("{{(fromJson .json).a}} {{index (fromJson .json) `a` 1}}", "[1 2.5 <nil> true] 2.5"),
    ("{{toPrettyJson (dict `a` (list 1))}}", '{\n  "a": [\n    1\n  ]\n}'),
    # Regular expressions
    ("{{regexMatch `^[a-z]+$` .name}} {{regexMatch `\\d` .name}}", "true false"),
    (
        "{{regexReplaceAll `(\\w+) (\\w+)` .text `${2} $1`}} {{regexReplaceAllLiteral `o` .text `$1`}}",
        "two one $1ne tw$1",
    ),
    ("{{regexFind `t.` .text}} {{regexFindAll `[aeiou]` .text -1}} {{regexFindAll `o` .text 1}}", "tw [o e o] [o]"),
    (
        "{{regexSplit `,\\s*` `a, b,c` -1}} {{regexSplit `,` `a,b,c` 2}} {{regexQuoteMeta `1.5*`}}",
        "[a b c] [a b,c] 1\\.5\\*",
    ),
]

REFUSED: list[tuple[str, str]] = [
    ("{{upper .zero}}", "1:3: upper: argument 1: wrong type for value; expected string; got int (use toString)"),
    ("{{.nothing | upper}}", "1:14: upper: argument 1: invalid value; expected string"),
    ("{{defualt 1 2}}", "function 'defualt' is not defined; did you mean default"),
    ("{{now}}", "function 'now' is not defined: a resumed run has to get the same text again"),
    ("{{env `HOME`}}", "templates see nothing but the run's data"),
    ("{{randAlphaNum 5}}", "templates have no randomness"),
    ("{{set .map `a` 1}}", "templates cannot change data"),
    ("{{tpl `x` .}}", "never evaluated as a template"),
    ("{{div 1 0}}", "div: division by zero"),
    ("{{mul 9223372036854775807 2}}", "does not fit an integer of 64 bits"),
    ("{{add .list 1}}", "add: argument 1: expected a number; got []interface {}"),
    ("{{first .name}}", "first: argument 1: expected a list; got string"),
    ("{{keys .list}}", "keys: argument 1: expected a map; got []interface {}"),
    ("{{ternary 1 2 .name}}", "expected a bool; got string"),
    ("{{fail `no luck`}}", "1:3: fail: no luck"),
    ("{{required `it is needed` .empty}}", "required: it is needed"),
    ("{{fromJson .name}}", "fromJson: the text is no JSON"),
    ("{{b64dec `?`}}", "b64dec: the text is no base64"),
    ("{{regexMatch `(` .name}}", "the pattern cannot be used"),
    ("{{regexMatch `a(?=b)` .name}}", "invalid perl operator: (?="),
    ("{{indent 100000 .name}}", "indent of 100000 is not allowed: 0 to 200"),
    ("{{repeat -1 .name}}", "it cannot be negative"),
    ("{{repeat 100000000000 .name}}", "too long"),
    ("{{until 100000000}}", "too long: at most 10000"),
    ("{{printf `%1000000d` 1}}", "a width of 1000000 is too large: at most 1000"),
    ("{{printf `%.99999f` 1.5}}", "a width of 99999 is too large"),
    ("{{printf `%*d` 5000 1}}", "a width of 5000 is too large"),
    ("{{chunk 0 .list}}", "it has to be 1 or more"),
    ("{{dict 1 2}}", "a key has to be a string; got int"),
    ("{{trunc 1.5 .name}}", "expected an integer; got float64"),
    ("{{default}}", "it wants 1 to 2, got 0"),
    ("{{round 1.5 99}}", "99 places are not allowed"),
]
