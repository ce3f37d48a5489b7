package filter

import (
	"encoding/json"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// function is one that expressions may call.
type function struct {
	least, most int // arguments; most < 0: any number
	call        func(e *evaluation, args []any) (any, error)
}

var functions map[string]function

func init() { // they refer to each other through eval
	functions = map[string]function{
		"abs":         {1, 1, number(math.Abs)},
		"avg":         {1, 1, average},
		"ceil":        {1, 1, number(math.Ceil)},
		"contains":    {2, 2, contains},
		"ends_with":   {2, 2, texts(strings.HasSuffix)},
		"floor":       {1, 1, number(math.Floor)},
		"join":        {2, 2, join},
		"keys":        {1, 1, keys},
		"length":      {1, 1, length},
		"lower":       {1, 1, changed(strings.ToLower)},
		"max":         {1, 1, extreme(1)},
		"merge":       {1, -1, merge},
		"min":         {1, 1, extreme(-1)},
		"not_null":    {1, -1, notNull},
		"reverse":     {1, 1, reverse},
		"sort":        {1, 1, sorted},
		"starts_with": {2, 2, texts(strings.HasPrefix)},
		"sum":         {1, 1, sum},
		"to_array":    {1, 1, toArray},
		"to_number":   {1, 1, toNumber},
		"to_string":   {1, 1, toString},
		"trim":        {1, 1, changed(strings.TrimSpace)},
		"type":        {1, 1, typeOf},
		"upper":       {1, 1, changed(strings.ToUpper)},
		"values":      {1, 1, values},
	}
}

func number(f func(float64) float64) func(*evaluation, []any) (any, error) {
	return func(_ *evaluation, args []any) (any, error) {
		n, ok := args[0].(float64)
		if !ok {
			return nil, errType
		}
		return f(n), nil
	}
}

func texts(f func(s, part string) bool) func(*evaluation, []any) (any, error) {
	return func(e *evaluation, args []any) (any, error) {
		s, ok1 := args[0].(string)
		part, ok2 := args[1].(string)
		if !ok1 || !ok2 {
			return nil, errType
		}
		return f(s, part), e.spendText(part)
	}
}

func changed(f func(string) string) func(*evaluation, []any) (any, error) {
	return func(e *evaluation, args []any) (any, error) {
		s, ok := args[0].(string)
		if !ok {
			return nil, errType
		}
		if err := e.spendText(s); err != nil {
			return nil, err
		}
		return f(s), nil
	}
}

func contains(e *evaluation, args []any) (any, error) {
	switch in := args[0].(type) {
	case string:
		part, ok := args[1].(string)
		if !ok {
			return false, nil
		}
		if err := e.spendText(in); err != nil {
			return nil, err
		}
		return strings.Contains(in, part), nil
	case []any:
		for _, element := range in {
			if same, err := e.equal(element, args[1]); err != nil || same {
				return same, err
			}
		}
		return false, nil
	}
	return nil, errType
}

func length(e *evaluation, args []any) (any, error) {
	switch v := args[0].(type) {
	case string:
		return float64(utf8.RuneCountInString(v)), e.spendText(v)
	case []any:
		return float64(len(v)), nil
	case map[string]any:
		return float64(len(v)), nil
	}
	return nil, errType
}

// list is an argument that must be a list, whose elements are all looked at.
func list(e *evaluation, v any) ([]any, error) {
	l, ok := v.([]any)
	if !ok {
		return nil, errType
	}
	return l, e.spend(len(l))
}

func numbers(e *evaluation, v any) ([]float64, error) {
	l, err := list(e, v)
	if err != nil {
		return nil, err
	}
	all := make([]float64, len(l))
	for i, element := range l {
		n, ok := element.(float64)
		if !ok {
			return nil, errType
		}
		all[i] = n
	}
	return all, nil
}

func sum(e *evaluation, args []any) (any, error) {
	all, err := numbers(e, args[0])
	total := 0.0
	for _, n := range all {
		total += n
	}
	return total, err
}

func average(e *evaluation, args []any) (any, error) {
	all, err := numbers(e, args[0])
	if err != nil || len(all) == 0 {
		return nil, err
	}
	total := 0.0
	for _, n := range all {
		total += n
	}
	return total / float64(len(all)), nil
}

// compare orders two numbers or two texts.
func compare(e *evaluation, a, b any) (int, error) {
	switch a := a.(type) {
	case float64:
		if b, ok := b.(float64); ok {
			switch {
			case a < b:
				return -1, e.spend(1)
			case a > b:
				return 1, e.spend(1)
			}
			return 0, e.spend(1)
		}
	case string:
		if b, ok := b.(string); ok {
			if err := e.spendText(a); err != nil {
				return 0, err
			}
			return strings.Compare(a, b), e.spend(1)
		}
	}
	return 0, errType
}

func extreme(sign int) func(*evaluation, []any) (any, error) {
	return func(e *evaluation, args []any) (any, error) {
		l, err := list(e, args[0])
		if err != nil || len(l) == 0 {
			return nil, err
		}
		best := l[0]
		for _, v := range l {
			c, err := compare(e, v, best)
			if err != nil {
				return nil, err
			}
			if c*sign > 0 {
				best = v
			}
		}
		return best, nil
	}
}

func sorted(e *evaluation, args []any) (any, error) {
	l, err := list(e, args[0])
	if err != nil {
		return nil, err
	}
	l = slices.Clone(l)
	slices.SortStableFunc(l, func(a, b any) int {
		c, failed := compare(e, a, b)
		if err == nil {
			err = failed
		}
		return c
	})
	return l, err
}

func reverse(e *evaluation, args []any) (any, error) {
	if s, ok := args[0].(string); ok {
		if err := e.spendText(s); err != nil {
			return nil, err
		}
		r := []rune(s)
		slices.Reverse(r)
		return string(r), nil
	}
	l, err := list(e, args[0])
	if err != nil {
		return nil, err
	}
	l = slices.Clone(l)
	slices.Reverse(l)
	return l, nil
}

func join(e *evaluation, args []any) (any, error) {
	glue, ok := args[0].(string)
	if !ok {
		return nil, errType
	}
	l, err := list(e, args[1])
	if err != nil {
		return nil, err
	}
	all := make([]string, len(l))
	size := 0
	for i, element := range l {
		if all[i], ok = element.(string); !ok {
			return nil, errType
		}
		size += len(glue) + len(all[i])
	}
	if err := e.spend(size / bytesPerStep); err != nil {
		return nil, err
	}
	return strings.Join(all, glue), nil
}

func keys(e *evaluation, args []any) (any, error) {
	object, ok := args[0].(map[string]any)
	if !ok {
		return nil, errType
	}
	names, err := e.keys(object)
	if err != nil {
		return nil, err
	}
	l := make([]any, len(names))
	for i, name := range names {
		l[i] = name
	}
	return l, nil
}

func values(e *evaluation, args []any) (any, error) {
	object, ok := args[0].(map[string]any)
	if !ok {
		return nil, errType
	}
	l, err := e.values(object)
	return l, err
}

func merge(e *evaluation, args []any) (any, error) {
	merged := make(map[string]any)
	for _, arg := range args {
		object, ok := arg.(map[string]any)
		if !ok {
			return nil, errType
		}
		if err := e.spend(len(object)); err != nil {
			return nil, err
		}
		for k, v := range object {
			merged[k] = v
		}
	}
	return merged, nil
}

func notNull(_ *evaluation, args []any) (any, error) {
	for _, arg := range args {
		if arg != nil {
			return arg, nil
		}
	}
	return nil, nil
}

func toArray(_ *evaluation, args []any) (any, error) {
	if l, ok := args[0].([]any); ok {
		return l, nil
	}
	return []any{args[0]}, nil
}

func toNumber(e *evaluation, args []any) (any, error) {
	switch v := args[0].(type) {
	case float64:
		return v, nil
	case string:
		if err := e.spendText(v); err != nil {
			return nil, err
		}
		if n, err := strconv.ParseFloat(v, 64); err == nil {
			return n, nil
		}
	}
	return nil, nil
}

func toString(e *evaluation, args []any) (any, error) {
	if s, ok := args[0].(string); ok {
		return s, nil
	}
	if err := e.measure(args[0]); err != nil {
		return nil, err
	}
	b, err := json.Marshal(args[0])
	return string(b), err
}

// measure spends what it costs to write v.
func (e *evaluation) measure(v any) error {
	if err := e.spend(1); err != nil {
		return err
	}
	switch v := v.(type) {
	case string:
		return e.spendText(v)
	case []any:
		for _, element := range v {
			if err := e.measure(element); err != nil {
				return err
			}
		}
	case map[string]any:
		for k, element := range v {
			if err := e.spendText(k); err != nil {
				return err
			}
			if err := e.measure(element); err != nil {
				return err
			}
		}
	}
	return nil
}

func typeOf(_ *evaluation, args []any) (any, error) {
	switch args[0].(type) {
	case nil:
		return "null", nil
	case bool:
		return "boolean", nil
	case float64:
		return "number", nil
	case string:
		return "string", nil
	case []any:
		return "array", nil
	}
	return "object", nil
}
