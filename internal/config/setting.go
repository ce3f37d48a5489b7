package config

import (
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"time"
)

// setting is one leaf of Config: a field that is no struct.
type setting struct {
	path  string // "server.port"
	field reflect.StructField
	value reflect.Value // addressable, in the Config that settings was asked for
}

var durationType = reflect.TypeFor[time.Duration]()

// settings lists the leaves of c in the order of the struct.
func settings(c *Config) []setting {
	var list []setting
	var walk func(v reflect.Value, prefix string)
	walk = func(v reflect.Value, prefix string) {
		for _, f := range yamlFields(v.Type()) {
			s := setting{path: prefix + yamlName(f), field: f, value: v.FieldByIndex(f.Index)}
			if f.Type.Kind() == reflect.Struct {
				walk(s.value, s.path+".")
				continue
			}
			list = append(list, s)
		}
	}
	walk(reflect.ValueOf(c).Elem(), "")
	return list
}

func yamlName(f reflect.StructField) string { return f.Tag.Get("yaml") }

// yamlFields are the fields of a struct that are settings.
func yamlFields(t reflect.Type) []reflect.StructField {
	var fields []reflect.StructField
	for f := range t.Fields() {
		if yamlName(f) != "-" {
			fields = append(fields, f)
		}
	}
	return fields
}

// env is the name of the environment variable, or "" for a list of objects.
func (s setting) env() string {
	if s.isObjectList() {
		return ""
	}
	return "LETSHARE_" + strings.ToUpper(strings.ReplaceAll(s.path, ".", "_"))
}

func (s setting) isObjectList() bool {
	return s.field.Type.Kind() == reflect.Slice && s.field.Type.Elem().Kind() == reflect.Struct
}

// set reads a value from text, as the environment and flags give it.
func (s setting) set(text string) error {
	if s.field.Type.Kind() != reflect.Slice {
		return setScalar(s.value, text)
	}
	if s.isObjectList() {
		return fmt.Errorf("can be set in the file only")
	}
	list := reflect.MakeSlice(s.field.Type, 0, 4)
	for part := range strings.SplitSeq(text, ",") {
		if part = strings.TrimSpace(part); part == "" {
			continue
		}
		item := reflect.New(s.field.Type.Elem()).Elem()
		if err := setScalar(item, part); err != nil {
			return err
		}
		list = reflect.Append(list, item)
	}
	s.value.Set(list)
	return nil
}

// setScalar reads one plain value. Its errors quote no value, which may be a secret.
func setScalar(v reflect.Value, text string) error {
	if v.Type() == durationType {
		d, err := time.ParseDuration(text)
		if err != nil {
			return fmt.Errorf(`must be a duration such as "30s" or "5m"`)
		}
		v.SetInt(int64(d))
		return nil
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(text)
	case reflect.Int:
		n, err := strconv.Atoi(text)
		if err != nil {
			return fmt.Errorf("must be a whole number")
		}
		v.SetInt(int64(n))
	case reflect.Bool:
		b, err := strconv.ParseBool(text)
		if err != nil {
			return fmt.Errorf("must be true or false")
		}
		v.SetBool(b)
	default:
		panic("config: a setting has the unknown type " + v.Type().String())
	}
	return nil
}

// nearest returns the name that takes the fewest edits to become the one that was typed,
// in the form of an addition to an error text, or "" if none is near.
func nearest(typed string, names []string) string {
	best, distance := "", max(len(typed)/3, 2)+1
	for _, name := range names {
		if d := editDistance(typed, name); d < distance {
			best, distance = name, d
		}
	}
	if best == "" {
		return ""
	}
	return ", did you mean " + best + "?"
}

func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			diagonal, row[j+1] = row[j+1], min(row[j+1]+1, row[j]+1, diagonal+cost)
		}
	}
	return row[len(b)]
}

// NeedRestart lists the settings that differ between two configurations and that a running
// server cannot adopt.
func NeedRestart(running, next Config) []string {
	var paths []string
	now, then := settings(&running), settings(&next)
	for i, s := range now {
		if s.field.Tag.Get("reload") == "" && !reflect.DeepEqual(s.value.Interface(), then[i].value.Interface()) {
			paths = append(paths, s.path)
		}
	}
	if running.Mode != next.Mode {
		paths = append(paths, "MODE")
	}
	return paths
}
