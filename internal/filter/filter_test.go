package filter_test

import (
	"encoding/base64"
	"fmt"
	"strings"
	"testing"
	"time"

	"letshare-server/internal/filter"
	"letshare-server/internal/pubsub"
)

// sold is a message with headers of all types.
var sold = &pubsub.Message{
	Name: "ice-cream", ClientID: "bob", Data: pubsub.Text("unseen"),
	Extras: []byte(`{"headers":{"flavor":"strawberry","cost":35,"temp":-3,"vegan":true,"stale":false,"none":null,"empty":"","tags":"a,b"},"ref":{"flavor":"no"}}`),
}

func TestAMessagePassesIfTheExpressionIsTrueOfIt(t *testing.T) {
	for _, test := range []struct {
		expression string
		passes     bool
	}{
		{"name == `\"ice-cream\"`", true},
		{"name == 'ice-cream' && headers.cost > `30`", true},
		{"name == 'ice-cream' && headers.cost > `35`", false},
		{"name == 'sorbet' || headers.flavor == 'strawberry'", true},
		{"!(name == 'ice-cream')", false},
		{"clientId == 'bob'", true},
		{"headers.vegan", true},
		{"headers.stale", false},
		{"headers.empty", false},
		{"headers.none", false},
		{"headers.missing.deeper", false},
		{"headers.cost", true}, // 0 would be true too
		{"data", false},
		{"extras", false},
		{"ref", false},
		{"@", true},
		{"headers.\"flavor\" != 'vanilla'", true},
		{"headers.cost <= `35` && headers.cost >= `35` && headers.temp < `0`", true},
		{"headers.flavor < 'z'", false}, // only numbers are ordered
		{"contains(headers.flavor, 'berry')", true},
		{"contains(['gelato', 'ice-cream'], name)", true},
		{"contains(`[\"gelato\",\"sorbet\"]`, name)", false},
		{"starts_with(name, 'ice') && ends_with(name, 'cream')", true},
		{"starts_with(headers.missing, 'x')", false}, // a type error
		{"!starts_with(headers.missing, 'x')", false},
		{"length(name) == `9`", true},
		{"length(keys(headers)) == `8`", true},
		{"keys(headers)[0] == 'cost' && keys(headers)[-1] == 'vegan'", true},
		{"values(headers)[0] == `35`", true},
		{"headers.* | [?@ == 'strawberry']", true},
		{"headers.* | [?@ == 'vanilla']", false},
		{"headers.*[0]", false}, // texts have no elements
		{"type(headers.cost) == 'number' && type(headers) == 'object' && type(headers.none) == 'null' && type(name) == 'string' && type(headers.vegan) == 'boolean' && type([name]) == 'array'", true},
		{"to_number('35') == headers.cost && to_string(headers.cost) == '35'", true},
		{"to_string(headers.vegan) == 'true' && to_string([headers.cost]) == '[35]'", true},
		{"not_null(headers.none, headers.cost) == `35`", true},
		{"abs(headers.temp) == `3` && ceil(`1.5`) == `2` && floor(`-1.5`) == `-2`", true},
		{"max([headers.cost, `40`]) == `40` && min([headers.cost, `40`]) == `35` && max(`[]`) == `null`", true},
		{"sum([`1`, `2`]) == `3` && avg([`1`, `2`]) == `1.5` && avg(`[]`) == `null`", true},
		{"sum(['a'])", false},
		{"sort([`3`, `1`, `2`]) == `[1,2,3]` && reverse(sort(['b','a'])) == `[\"b\",\"a\"]`", true},
		{"sort([`3`, 'a'])", false},
		{"join('-', ['a', 'b']) == 'a-b' && upper(name) == 'ICE-CREAM' && lower('X') == 'x' && trim(' x ') == 'x'", true},
		{"merge({a: `1`}, {b: `2`}) == `{\"a\":1,\"b\":2}`", true},
		{"to_array(name) == ['ice-cream'] && to_array(`[1]`) == `[1]`", true},
		{"headers.{f: flavor, c: cost} == `{\"f\":\"strawberry\",\"c\":35}`", true},
		{"[name, headers.cost] == `[\"ice-cream\",35]`", true},
		{"`[1,2,3,4]`[1:3] == `[2,3]` && `[1,2,3]`[::-1] == `[3,2,1]` && `[1,2,3]`[-2:] == `[2,3]`", true},
		{"`[1,2,3]`[5:] || `[1,2,3]`[-9:1] == `[1]`", true},
		{"name[0:3] == 'ice' && name[::-1] == 'maerc-eci'", true},
		{"`[[1],[2,[3]],4]`[] == `[1,2,[3],4]`", true},
		{"`[{\"a\":1},{\"a\":2},{\"b\":3}]`[*].a == `[1,2]`", true},
		{"`[{\"a\":1},{\"a\":2}]`[?a > `1`].a | [0] == `2`", true},
		{"headers.cost + `5` == `40` && headers.cost - `5` == `30` && headers.cost % `2` == `1` && -headers.temp == `3`", true},
		{"headers.cost / `2` == `17.5` && headers.cost // `2` == `17` && headers.cost \u00d7 `2` == `70`", true},
		{"headers | $.name == 'ice-cream'", true},
		{"`{\"a\":[1,{\"b\":null}]}` == `{\"a\":[1,{\"b\":null}]}`", true},
		{"`{\"a\":[1,{\"b\":null}]}` == `{\"a\":[1,{\"c\":null}]}`", false},
		{"`[1]` == name || name == `[1]` || `{}` == name", false},
	} {
		f, err := filter.Compile(test.expression)
		if err != nil {
			t.Errorf("%s: %v", test.expression, err)
			continue
		}
		if got := f.Matches(filter.Of(sold)); got != test.passes {
			t.Errorf("%s: got %v", test.expression, got)
		}
		if f.Expression() != test.expression {
			t.Errorf("%s: the filter says it is %s", test.expression, f.Expression())
		}
	}
}

func TestAMessageWithoutNameAndHeadersHasNeither(t *testing.T) {
	for _, extras := range []string{"", `{}`, `{"headers":null}`, `not json`} {
		in := filter.Of(&pubsub.Message{Extras: []byte(extras)})
		for _, expression := range []string{"name", "clientId", "headers", "headers.x", "@"} {
			if compile(t, expression).Matches(in) {
				t.Errorf("extras %s: %s passes", extras, expression)
			}
		}
		if !compile(t, "!name && !(headers.x)").Matches(in) {
			t.Errorf("extras %s: what is not there is not null", extras)
		}
	}
}

func TestABadExpressionIsRefused(t *testing.T) {
	for _, expression := range []string{
		"", "  ", "name ==", "name == filtered`", "==", "(name", "name)", "[", "[?", "{a:", "{a:name", "name[", "name[1:2:3:4]", "`nonsense`", "'open",
		"\x80", "'\xff'", "name ~ 'x'", "name[::0]",
		"nothing(name)", "length()", "length(name, name)", "map(&name, [name])", "sort_by([name], &@)", "pad_left(name, `1000000000`)", "&name", "let $x = name in $x", "$x",
		strings.Repeat("(", 500) + "name" + strings.Repeat(")", 400),
		strings.Repeat("!", 300) + "name",
		"[" + strings.Repeat("@,", 300) + "@]",
		strings.Repeat("x", filter.MaxExpressionBytes+1),
	} {
		f, err := filter.Compile(expression)
		if err == nil {
			t.Errorf("%q: accepted as %v", expression, f)
			continue
		}
		if e := pubsub.ErrorFor(err); e.Code != pubsub.CodeInvalidChannelName || len(e.Message) > 300 {
			t.Errorf("%q: %d %s", expression, e.Code, e.Message)
		}
	}
}

func TestExpressionsAreInEitherBase64(t *testing.T) {
	const expression = "name == 'ÿ?>ÿ'" // has + and /, or - and _
	in := filter.Of(&pubsub.Message{Name: "ÿ?>ÿ"})
	for _, encoding := range []*base64.Encoding{base64.StdEncoding, base64.RawStdEncoding, base64.URLEncoding, base64.RawURLEncoding} {
		f, err := filter.Decode(encoding.EncodeToString([]byte(expression)))
		if err != nil || !f.Matches(in) {
			t.Errorf("%v", err)
		}
	}
	for _, bad := range []string{"", "=", "!", "bmFtZQ$"} {
		if _, err := filter.Decode(bad); err == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
}

// hostile are expressions that take much time or memory where nothing is counted.
var hostile = []string{
	strings.TrimSuffix(strings.Repeat("[@,@]|", 60), "|"),
	strings.Repeat("[@,@]|", 60) + "to_string(@)",
	strings.Repeat("[@,@]|", 60) + "@ == @",
	"[headers.*]|" + strings.TrimSuffix(strings.Repeat("[@,@][]|", 25), "|"),
	"values(headers)|[@,@,@,@,@,@,@,@][]|[@,@,@,@,@,@,@,@][]|[@,@,@,@,@,@,@,@][]|sort(@)",
	"['x']|" + strings.Repeat("[join('xxxxxxxxxxxxxxxx',[@[0],@[0],@[0],@[0],@[0]])]|", 12) + "@[0]",
	"headers.*|[?contains(@,'a')]|[?contains(@,'b')]|[*]|[*]|[*]|[::-1]|reverse(@)|sort(@)",
	"[$,$,$,$,$,$]|[*].[$.headers.*,$.headers.*,$.headers.*][][]|[*].[$.headers.*,$.headers.*,$.headers.*][][]",
}

// TestNoExpressionTakesLong has a message of the largest size.
func TestNoExpressionTakesLong(t *testing.T) {
	in := filter.Of(&pubsub.Message{Name: strings.Repeat("n", 20<<10), Extras: manyHeaders(4000)})
	for _, expression := range hostile {
		f := compile(t, expression)
		if took := soonest(func() { f.Matches(in) }); took > 100*time.Millisecond { // 1000 times what it should be
			t.Errorf("%s: %v", expression, took)
		}
	}
	if n := testing.AllocsPerRun(10, func() { compile(t, hostile[0]) }); n > 2000 {
		t.Errorf("%v allocations to compile", n)
	}
}

// soonest is the least time that f takes in ten tries, or the first that is short: who measures once
// measures what else runs on the machine.
func soonest(f func()) time.Duration {
	least := time.Hour
	for try := 0; try < 10 && least > 10*time.Millisecond; try++ {
		begin := time.Now()
		f()
		least = min(least, time.Since(begin))
	}
	return least
}

func manyHeaders(n int) []byte {
	var b strings.Builder
	b.WriteString(`{"headers":{"a":1`)
	for i := range n {
		fmt.Fprintf(&b, `,"h%d":"v%d"`, i, i)
	}
	b.WriteString(`}}`)
	return []byte(b.String())
}

func compile(t testing.TB, expression string) *filter.Filter {
	t.Helper()
	f, err := filter.Compile(expression)
	if err != nil {
		t.Fatalf("%s: %v", expression, err)
	}
	return f
}

// FuzzFilter looks for expressions that cannot be refused or run in peace.
func FuzzFilter(f *testing.F) {
	for _, expression := range hostile {
		f.Add(expression, "name", []byte(`{"headers":{"a":1,"b":"c"}}`))
	}
	f.Add("name == `\"filtered\"` && headers.number == `26095`", "filtered", []byte(`{"headers":{"number":26095}}`))
	f.Add("headers.*[?@ > `1`][1:-1:2] | [0].{a: @, b: [$, !@]} || -length(name) % `2`", "n", []byte(`{"headers":{"number":26095}}`))
	f.Fuzz(func(t *testing.T, expression, name string, extras []byte) {
		compiled, err := filter.Compile(expression)
		if err != nil {
			if e := pubsub.ErrorFor(err); e.Code != pubsub.CodeInvalidChannelName {
				t.Errorf("%v", err)
			}
			return
		}
		in := filter.Of(&pubsub.Message{Name: name, Extras: extras})
		var passes bool
		if took := soonest(func() { passes = compiled.Matches(in) }); took > time.Second {
			t.Errorf("took %v", took)
		}
		if compiled.Matches(in) != passes {
			t.Error("the second time it is different")
		}
	})
}

func BenchmarkMatches(b *testing.B) {
	f := compile(b, "name == `\"ice-cream\"` && headers.cost > `30`")
	in := filter.Of(sold)
	b.ReportAllocs()
	for b.Loop() {
		f.Matches(in)
	}
}

func BenchmarkHostile(b *testing.B) {
	in := filter.Of(&pubsub.Message{Name: strings.Repeat("n", 20<<10), Extras: manyHeaders(4000)})
	for i, expression := range hostile {
		f := compile(b, expression)
		b.Run(fmt.Sprint(i), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				f.Matches(in)
			}
		})
	}
}
