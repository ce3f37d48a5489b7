package filter

import (
	"errors"
	"maps"
	"math"
	"slices"

	"github.com/jmespath-community/go-jmespath/pkg/parsing"
)

// Values are what encoding/json makes of JSON: nil, bool, float64, string, []any and
// map[string]any. They are never changed.

var (
	errTooExpensive = errors.New("filter: too many steps")
	errType         = errors.New("filter: value of a wrong type")
)

// evaluation is one run of an expression over one message.
type evaluation struct {
	root any
	left int // steps
}

// spend takes n steps off what is left.
func (e *evaluation) spend(n int) error {
	if n > e.left {
		e.left = 0
		return errTooExpensive
	}
	e.left -= n
	return nil
}

// bytesPerStep is how much text is handled in one step.
const bytesPerStep = 64

func (e *evaluation) spendText(s string) error { return e.spend(len(s) / bytesPerStep) }

// eval returns the value of n, whose current node is v.
func (e *evaluation) eval(n *parsing.ASTNode, v any) (any, error) {
	if err := e.spend(1); err != nil {
		return nil, err
	}
	switch n.NodeType {
	case parsing.ASTIdentity, parsing.ASTCurrentNode:
		return v, nil
	case parsing.ASTRootNode:
		return e.root, nil
	case parsing.ASTLiteral:
		return n.Value, nil
	case parsing.ASTField:
		object, _ := v.(map[string]any)
		return object[n.Value.(string)], nil
	case parsing.ASTIndex:
		list, _ := v.([]any)
		i := n.Value.(int)
		if i < 0 {
			i += len(list)
		}
		if i < 0 || i >= len(list) {
			return nil, nil
		}
		return list[i], nil
	case parsing.ASTSubexpression, parsing.ASTIndexExpression:
		left, err := e.eval(&n.Children[0], v)
		if err != nil || left == nil {
			return nil, err
		}
		return e.eval(&n.Children[1], left)
	case parsing.ASTPipe:
		left, err := e.eval(&n.Children[0], v)
		if err != nil {
			return nil, err
		}
		return e.eval(&n.Children[1], left)
	case parsing.ASTKeyValPair:
		return e.eval(&n.Children[0], v)
	case parsing.ASTOrExpression, parsing.ASTAndExpression:
		left, err := e.eval(&n.Children[0], v)
		if err != nil || truth(left) == (n.NodeType == parsing.ASTOrExpression) {
			return left, err
		}
		return e.eval(&n.Children[1], v)
	case parsing.ASTNotExpression:
		operand, err := e.eval(&n.Children[0], v)
		return !truth(operand), err
	case parsing.ASTComparator, parsing.ASTArithmeticExpression, parsing.ASTArithmeticUnaryExpression:
		return e.operate(n, v)
	case parsing.ASTFunctionExpression:
		args := make([]any, len(n.Children))
		for i := range n.Children {
			var err error
			if args[i], err = e.eval(&n.Children[i], v); err != nil {
				return nil, err
			}
		}
		return functions[n.Value.(string)].call(e, args)
	case parsing.ASTMultiSelectList, parsing.ASTMultiSelectHash:
		return e.multiSelect(n, v)
	case parsing.ASTSlice:
		return e.slice(n.Value.([]*int), v)
	case parsing.ASTFlatten:
		return e.flatten(n, v)
	case parsing.ASTProjection, parsing.ASTFilterProjection, parsing.ASTValueProjection:
		return e.project(n, v)
	}
	return nil, errType // the checker lets no other pass
}

// operate evaluates comparisons and arithmetic.
func (e *evaluation) operate(n *parsing.ASTNode, v any) (any, error) {
	var operands [2]any
	for i := range n.Children {
		var err error
		if operands[i], err = e.eval(&n.Children[i], v); err != nil {
			return nil, err
		}
	}
	left, right := operands[0], operands[1]
	op := n.Value.(parsing.TokType)
	if n.NodeType == parsing.ASTComparator && (op == parsing.TOKEQ || op == parsing.TOKNE) {
		same, err := e.equal(left, right)
		return same == (op == parsing.TOKEQ), err
	}
	if n.NodeType == parsing.ASTArithmeticUnaryExpression {
		left, right = 0.0, left
	}
	a, ok1 := left.(float64)
	b, ok2 := right.(float64)
	if !ok1 || !ok2 {
		return nil, nil
	}
	switch op {
	case parsing.TOKLT:
		return a < b, nil
	case parsing.TOKLTE:
		return a <= b, nil
	case parsing.TOKGT:
		return a > b, nil
	case parsing.TOKGTE:
		return a >= b, nil
	case parsing.TOKPlus:
		return a + b, nil
	case parsing.TOKMinus:
		return a - b, nil
	case parsing.TOKStar, parsing.TOKMultiply:
		return a * b, nil
	case parsing.TOKDivide:
		return a / b, nil
	case parsing.TOKModulo:
		return math.Mod(a, b), nil
	case parsing.TOKDiv:
		return math.Floor(a / b), nil
	}
	return nil, errType
}

func (e *evaluation) multiSelect(n *parsing.ASTNode, v any) (any, error) {
	if n.NodeType == parsing.ASTMultiSelectHash {
		object := make(map[string]any, len(n.Children))
		for i := range n.Children {
			value, err := e.eval(&n.Children[i], v)
			if err != nil {
				return nil, err
			}
			object[n.Children[i].Value.(string)] = value
		}
		return object, nil
	}
	list := make([]any, len(n.Children))
	for i := range n.Children {
		var err error
		if list[i], err = e.eval(&n.Children[i], v); err != nil {
			return nil, err
		}
	}
	return list, nil
}

// slice is [start:stop:step] of a list, or of a text's code points.
func (e *evaluation) slice(parts []*int, v any) (any, error) {
	switch v := v.(type) {
	case []any:
		return part(e, v, parts)
	case string:
		if err := e.spendText(v); err != nil {
			return nil, err
		}
		runes, err := part(e, []rune(v), parts)
		return string(runes), err
	}
	return nil, nil
}

func part[T any](e *evaluation, all []T, parts []*int) ([]T, error) {
	step := 1
	if parts[2] != nil {
		step = *parts[2]
	}
	least, most := 0, len(all) // of positions; one lower when going backwards
	if step < 0 {
		least, most = -1, len(all)-1
	}
	bound := func(p *int, otherwise int) int {
		if p == nil {
			return otherwise
		}
		i := *p
		if i < 0 {
			i = max(i, -len(all)-1) + len(all)
		}
		return min(max(i, least), most)
	}
	var chosen []T
	if step > 0 {
		stop := bound(parts[1], most)
		for i := bound(parts[0], least); i < stop; i += step {
			chosen = append(chosen, all[i])
			if err := e.spend(1); err != nil || step > stop-i {
				return chosen, err
			}
		}
		return chosen, nil
	}
	stop := bound(parts[1], least)
	for i := bound(parts[0], most); i > stop; i += step {
		chosen = append(chosen, all[i])
		if err := e.spend(1); err != nil || step < stop-i {
			return chosen, err
		}
	}
	return chosen, nil
}

func (e *evaluation) flatten(n *parsing.ASTNode, v any) (any, error) {
	left, err := e.eval(&n.Children[0], v)
	if err != nil {
		return nil, err
	}
	list, ok := left.([]any)
	if !ok {
		return nil, nil
	}
	flat := []any{}
	for _, element := range list {
		inner, ok := element.([]any)
		if !ok {
			inner = []any{element}
		}
		if err := e.spend(len(inner) + 1); err != nil {
			return nil, err
		}
		flat = append(flat, inner...)
	}
	return flat, nil
}

// project evaluates the right side for each element of the left one, and keeps what is not
// null.
func (e *evaluation) project(n *parsing.ASTNode, v any) (any, error) {
	left, err := e.eval(&n.Children[0], v)
	if err != nil {
		return nil, err
	}
	var list []any
	switch left := left.(type) {
	case []any:
		if n.NodeType == parsing.ASTValueProjection {
			return nil, nil
		}
		list = left
	case map[string]any:
		if n.NodeType != parsing.ASTValueProjection {
			return nil, nil
		}
		if list, err = e.values(left); err != nil {
			return nil, err
		}
	case string:
		if first := &n.Children[0]; first.NodeType == parsing.ASTIndexExpression && first.Children[1].NodeType == parsing.ASTSlice {
			return left, nil // a slice of a text is no projection
		}
		return nil, nil
	default:
		return nil, nil
	}
	kept := []any{}
	for _, element := range list {
		if n.NodeType == parsing.ASTFilterProjection {
			keep, err := e.eval(&n.Children[2], element)
			if err != nil {
				return nil, err
			}
			if !truth(keep) {
				continue
			}
		}
		value, err := e.eval(&n.Children[1], element)
		if err != nil {
			return nil, err
		}
		if value != nil {
			kept = append(kept, value)
		}
	}
	return kept, nil
}

// values are those of an object, in the order of its keys.
func (e *evaluation) values(object map[string]any) ([]any, error) {
	keys, err := e.keys(object)
	if err != nil {
		return nil, err
	}
	list := make([]any, len(keys))
	for i, k := range keys {
		list[i] = object[k]
	}
	return list, nil
}

func (e *evaluation) keys(object map[string]any) ([]string, error) {
	if err := e.spend(len(object)); err != nil {
		return nil, err
	}
	return slices.Sorted(maps.Keys(object)), nil
}

// truth is what JMESPath takes for true: anything but null, false and what is empty.
func truth(v any) bool {
	switch v := v.(type) {
	case nil:
		return false
	case bool:
		return v
	case string:
		return v != ""
	case []any:
		return len(v) > 0
	case map[string]any:
		return len(v) > 0
	}
	return true
}

func (e *evaluation) equal(a, b any) (bool, error) {
	if err := e.spend(1); err != nil {
		return false, err
	}
	switch a := a.(type) {
	case []any:
		b, ok := b.([]any)
		if !ok || len(a) != len(b) {
			return false, nil
		}
		for i := range a {
			if same, err := e.equal(a[i], b[i]); err != nil || !same {
				return false, err
			}
		}
		return true, nil
	case map[string]any:
		b, ok := b.(map[string]any)
		if !ok || len(a) != len(b) {
			return false, nil
		}
		for k, v := range a {
			other, ok := b[k]
			if !ok {
				return false, nil
			}
			if same, err := e.equal(v, other); err != nil || !same {
				return false, err
			}
		}
		return true, nil
	case string:
		b, ok := b.(string)
		return ok && a == b, e.spendText(a)
	}
	switch b.(type) {
	case []any, map[string]any:
		return false, nil // not comparable with ==
	}
	return a == b, nil
}
