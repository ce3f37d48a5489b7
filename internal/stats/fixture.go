package stats

import (
	"encoding/json"

	"letshare-server/internal/pubsub"
)

// MaxFixtures bounds the fixtures of one request.
const MaxFixtures = 1000

// DecodeFixtures reads what a test suite posts: an object, or an array of them, with an
// intervalId and figures in the nested form, in JSON. What it does not know it ignores.
// Errors are CodeInvalidRequestBody and CodeBadRequest.
func DecodeFixtures(text []byte) ([]Fixture, error) {
	var document any
	if err := json.Unmarshal(text, &document); err != nil {
		return nil, pubsub.NewError(pubsub.CodeInvalidRequestBody, "Invalid request body: not JSON").Because(err)
	}
	list, ok := document.([]any)
	if !ok {
		list = []any{document}
	}
	if len(list) > MaxFixtures {
		return nil, pubsub.Errorf(pubsub.CodeBadRequest, "there are more than %d statistics in the request", MaxFixtures)
	}
	fixtures := make([]Fixture, 0, len(list))
	for i, element := range list {
		object, ok := element.(map[string]any)
		if !ok {
			return nil, pubsub.Errorf(pubsub.CodeInvalidRequestBody, "Invalid request body: element %d is no object", i)
		}
		f, err := decodeFixture(object)
		if err != nil {
			return nil, err
		}
		fixtures = append(fixtures, f)
	}
	return fixtures, nil
}

func decodeFixture(object map[string]any) (Fixture, error) {
	none := Fixture{}
	id, _ := object["intervalId"].(string)
	interval, err := ParseInterval(id)
	if err != nil {
		return none, pubsub.Errorf(pubsub.CodeBadRequest, "Invalid intervalId: %v", err)
	}
	if name, given := object["unit"].(string); given && name != "" {
		// A longer id than the unit needs is the moment when the interval begins.
		unit, ok := ParseUnit(name)
		if !ok || unit < interval.Unit {
			return none, pubsub.Errorf(pubsub.CodeBadRequest, "Invalid unit %.20q of the interval %s", name, interval)
		}
		interval = interval.In(unit)
	}
	t := new(Totals)
	if err := t.take("", object, maxDepth); err != nil {
		return none, err
	}
	t.completeResources(interval)
	t.part()
	return Fixture{interval, t}, nil
}

// maxFigure bounds a figure, so that sums of them can be told.
const maxFigure = 1e15

// maxDepth is how many names the path of a figure has at most.
const maxDepth = 4

// take reads the figures of an object and those in it down to a depth; prefix is what their
// paths begin with.
func (t *Totals) take(prefix string, object map[string]any, depth int) error {
	for name, value := range object {
		path := prefix + name
		if inner, ok := value.(map[string]any); ok {
			if depth > 1 {
				if err := t.take(path+".", inner, depth-1); err != nil {
					return err
				}
			}
			continue
		}
		metric, ok := known[path]
		if !ok || value == nil {
			continue
		}
		n, ok := value.(float64)
		if !ok || n < 0 || n > maxFigure {
			return pubsub.Errorf(pubsub.CodeBadRequest, "Invalid %s: must be a number from 0 to %g", path, float64(maxFigure))
		}
		t.n[metric] = n
	}
	return nil
}

// completeResources makes usage of the means, and tells of all connections what is told of
// their kinds.
func (t *Totals) completeResources(i Interval) {
	all := t.n[resource(connectionsAll, 0):]
	for f := range resourceNames {
		all[f] = max(all[f], t.n[resource(connectionsPlain, f)]+t.n[resource(connectionsTLS, f)])
	}
	length := float64(i.End().Sub(i.Start()).Milliseconds())
	for r := range resources {
		of := t.n[resource(r, 0):][:resourceFigures]
		if of[peak] != 0 || of[low] != 0 || of[usage] != 0 {
			of[usage] *= length
			of[duration] = length
		}
	}
}
