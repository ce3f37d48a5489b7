package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// decodeYAML reads a file's text into c. What the text does not mention stays as it is, and
// so does what it mentions without a value. Errors name the file and the line.
//
// The nodes are walked here, not by the library, for the sake of these errors: they name
// the nearest known key, and never quote a value, which may be a secret.
func decodeYAML(file string, text []byte, c *Config) error {
	var doc yaml.Node
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	switch err := decoder.Decode(&doc); {
	case errors.Is(err, io.EOF):
		return nil // nothing but comments
	case err != nil:
		return fmt.Errorf("%s: %w", file, err)
	}
	if decoder.Decode(&yaml.Node{}) != io.EOF {
		return fmt.Errorf("%s: more than one document", file)
	}
	d := yamlDecoder{file: file}
	d.value(doc.Content[0], reflect.ValueOf(c).Elem(), "")
	return errors.Join(d.errs...)
}

type yamlDecoder struct {
	file string
	errs []error
}

func (d *yamlDecoder) fail(n *yaml.Node, path, format string, args ...any) {
	where := fmt.Sprintf("%s:%d: ", d.file, n.Line)
	if path != "" {
		where += path + " "
	}
	d.errs = append(d.errs, errors.New(where+fmt.Sprintf(format, args...)))
}

// value reads n into v. path is the setting's name, for errors.
func (d *yamlDecoder) value(n *yaml.Node, v reflect.Value, path string) {
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	if n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" {
		return
	}
	switch {
	case v.Kind() == reflect.Struct:
		d.mapping(n, v, path)
	case v.Kind() == reflect.Slice:
		if n.Kind != yaml.SequenceNode {
			d.fail(n, path, "must be a list")
			return
		}
		list := reflect.MakeSlice(v.Type(), len(n.Content), len(n.Content))
		for i, item := range n.Content {
			d.value(item, list.Index(i), fmt.Sprintf("%s[%d]", path, i))
		}
		v.Set(list)
	case n.Kind != yaml.ScalarNode:
		d.fail(n, path, "must be a single value")
	default:
		if err := setScalar(v, n.Value); err != nil {
			d.fail(n, path, "%v", err)
		}
	}
}

func (d *yamlDecoder) mapping(n *yaml.Node, v reflect.Value, path string) {
	if n.Kind != yaml.MappingNode {
		d.fail(n, path, "must have settings below it")
		return
	}
	prefix := path
	if prefix != "" {
		prefix += "."
	}
	byName := make(map[string]reflect.StructField)
	names := []string{}
	for _, f := range yamlFields(v.Type()) {
		byName[yamlName(f)] = f
		names = append(names, yamlName(f))
	}
	seen := make(map[string]bool)
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		f, known := byName[key.Value]
		switch {
		case !known || key.Kind != yaml.ScalarNode:
			d.fail(key, "", "unknown setting %s%s%s", prefix, key.Value, nearest(key.Value, names))
		case seen[key.Value]:
			d.fail(key, prefix+key.Value, "is there twice")
		default:
			seen[key.Value] = true
			d.value(value, v.FieldByIndex(f.Index), prefix+key.Value)
		}
	}
}

// DefaultYAML is the configuration of a mode with nothing set, as a file that says what
// each setting means.
func DefaultYAML(mode Mode) string {
	var b strings.Builder
	b.WriteString("# Every setting with its default. A variable of the environment wins over this file:\n" +
		"# LETSHARE_SERVER_PORT is server.port, and so on.\n")
	c := Default(mode)
	writeStruct(&b, reflect.ValueOf(c), "")
	return b.String()
}

func writeStruct(b *strings.Builder, v reflect.Value, indent string) {
	for _, f := range yamlFields(v.Type()) {
		if indent == "" {
			b.WriteByte('\n')
		}
		writeComment(b, f.Tag.Get("doc"), indent)
		field := v.FieldByIndex(f.Index)
		b.WriteString(indent + yamlName(f) + ":")
		switch {
		case f.Type.Kind() == reflect.Struct:
			b.WriteByte('\n')
			writeStruct(b, field, indent+"  ")
		case f.Type.Kind() == reflect.Slice && field.Len() == 0:
			b.WriteString(" []\n")
			if f.Type.Elem().Kind() == reflect.Struct {
				writeExample(b, f.Type.Elem(), indent+"#   - ", indent+"#     ")
			}
		case f.Type.Kind() == reflect.Slice:
			b.WriteByte('\n')
			for i := range field.Len() {
				b.WriteString(indent + "  - " + scalarYAML(field.Index(i)) + "\n")
			}
		default:
			b.WriteString(" " + scalarYAML(field) + "\n")
		}
	}
}

// writeExample shows, as a comment, what an item of a list of objects looks like. first begins
// its first line, rest the others.
func writeExample(b *strings.Builder, item reflect.Type, first, rest string) {
	prefix := first
	for _, f := range yamlFields(item) {
		value := " []"
		switch f.Type.Kind() {
		case reflect.Slice:
		case reflect.Struct:
			value = ""
		default:
			value = " " + scalarYAML(reflect.Zero(f.Type))
		}
		fmt.Fprintf(b, "%s%s:%s # %s\n", prefix, yamlName(f), value, f.Tag.Get("doc"))
		prefix = rest
		switch f.Type.Kind() {
		case reflect.Slice:
			writeExample(b, f.Type.Elem(), rest+"  - ", rest+"    ")
		case reflect.Struct:
			writeExample(b, f.Type, rest+"  ", rest+"  ")
		}
	}
}

func scalarYAML(v reflect.Value) string {
	if v.Type() == durationType {
		return shortDuration(time.Duration(v.Int()))
	}
	if v.Kind() == reflect.String {
		return fmt.Sprintf("%q", v.String())
	}
	return fmt.Sprint(v.Interface())
}

// shortDuration writes 10m as "10m" and not as "10m0s".
func shortDuration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// writeComment breaks a text into comment lines.
func writeComment(b *strings.Builder, text, indent string) {
	const width = 92
	line := indent + "#"
	for word := range strings.FieldsSeq(text) {
		if len(line)+1+len(word) > width && line != indent+"#" {
			b.WriteString(line + "\n")
			line = indent + "#"
		}
		line += " " + word
	}
	b.WriteString(line + "\n")
}
