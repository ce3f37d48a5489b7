package filter

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/jmespath-community/go-jmespath/pkg/parsing"

	"letshare-server/internal/pubsub"
)

// The bounds of an expression, and of what it may do with one message.
const (
	MaxExpressionBytes = 1024

	maxNodes = 256 // so deep it may be too
	maxSteps = 2000
)

// Filter is a compiled expression. It is immutable.
type Filter struct {
	expression string
	root       parsing.ASTNode
}

// Decode compiles an expression in base64, of either alphabet, padded or not, as it stands in
// a channel's name (RTS5a1-2). Every error is an *pubsub.Error with CodeInvalidChannelName.
func Decode(encoded string) (*Filter, error) {
	encoded = strings.TrimRight(encoded, "=")
	b, err := base64.RawStdEncoding.DecodeString(encoded)
	if err != nil {
		b, err = base64.RawURLEncoding.DecodeString(encoded)
	}
	if err != nil {
		return nil, invalid("it is not in base64")
	}
	return Compile(string(b))
}

// Compile compiles an expression. Every error is an *pubsub.Error with
// CodeInvalidChannelName.
func Compile(expression string) (*Filter, error) {
	switch {
	case strings.TrimSpace(expression) == "":
		return nil, invalid("it is empty")
	case len(expression) > MaxExpressionBytes:
		return nil, invalid("it is longer than %d bytes", MaxExpressionBytes)
	case !utf8.ValidString(expression):
		return nil, invalid("it is not UTF-8")
	}
	root, err := parse(expression)
	if err != nil {
		return nil, invalid("%v", err)
	}
	c := checker{}
	if err := c.check(&root); err != nil {
		return nil, invalid("%v", err)
	}
	return &Filter{expression, root}, nil
}

// parse is the library's parser, which looks beyond the end of some expressions.
func parse(expression string) (root parsing.ASTNode, err error) {
	defer func() {
		if recover() != nil {
			err = fmt.Errorf("it is incomplete")
		}
	}()
	return parsing.NewParser().Parse(expression)
}

func invalid(format string, args ...any) *pubsub.Error {
	return pubsub.NewError(pubsub.CodeInvalidChannelName, "invalid channel filter: "+fmt.Sprintf(format, args...))
}

// Expression is what the filter was compiled from. Filters with equal expressions are equal.
func (f *Filter) Expression() string { return f.expression }

// Input is what expressions see of one message.
type Input struct{ fields map[string]any }

// Of returns what expressions see of m. It reads the extras, and is shared by all filters
// that m is put to.
func Of(m *pubsub.Message) Input {
	fields := make(map[string]any, 3)
	if m.Name != "" {
		fields["name"] = m.Name
	}
	if m.ClientID != "" {
		fields["clientId"] = m.ClientID
	}
	if len(m.Extras) > 0 {
		var extras struct {
			Headers map[string]any `json:"headers"`
		}
		if json.Unmarshal(m.Extras, &extras) == nil && extras.Headers != nil {
			fields["headers"] = extras.Headers
		}
	}
	return Input{fields}
}

// Matches reports whether a message passes. One on which the expression fails, or takes too
// long, does not.
func (f *Filter) Matches(in Input) bool {
	e := evaluation{root: in.fields, left: maxSteps}
	result, err := e.eval(&f.root, in.fields)
	return err == nil && truth(result)
}

// checker walks an expression once, when it is compiled.
type checker struct{ nodes int }

func (c *checker) check(n *parsing.ASTNode) error {
	c.nodes++
	if c.nodes > maxNodes {
		return fmt.Errorf("it is too complex")
	}
	switch n.NodeType {
	case parsing.ASTExpRef, parsing.ASTLetExpression, parsing.ASTVariable, parsing.ASTBindings, parsing.ASTBinding, parsing.ASTEmpty:
		return fmt.Errorf("references to expressions and variables are not supported")
	case parsing.ASTFunctionExpression:
		name, _ := n.Value.(string)
		f, known := functions[name]
		if !known {
			return fmt.Errorf("unknown function %s()", clip(name))
		}
		if args := len(n.Children); args < f.least || f.most >= 0 && args > f.most {
			return fmt.Errorf("wrong number of arguments for %s()", name)
		}
	case parsing.ASTSlice:
		if step := n.Value.([]*int)[2]; step != nil && *step == 0 {
			return fmt.Errorf("the step of a slice is 0")
		}
	}
	for i := range n.Children {
		if err := c.check(&n.Children[i]); err != nil {
			return err
		}
	}
	return nil
}

func clip(s string) string {
	if len(s) > 32 {
		return strings.ToValidUTF8(s[:32], "") + "…"
	}
	return s
}
