package engine

// Tally is how much a space of a channel holds.
type Tally struct {
	Records int
	Bytes   int64 // of keys and values
}

// Payload is what a record counts for in a Tally.
func Payload(key string, value []byte) int64 { return int64(len(key) + len(value)) }

// Check returns why b forbids puts, ErrTooManyRecords or ErrRecordsTooLarge, or nil. now is
// what the space holds before them; payload tells how much of it is the record with a key,
// false if there is none.
func (b *Bound) Check(puts []Put, now Tally, payload func(key string) (int64, bool)) error {
	after := now
	seen := make(map[string]int64, len(puts)) // payloads of records put, -1 for deleted ones
	for i := range puts {
		p := &puts[i]
		if p.Space != b.Space {
			continue
		}
		before, known := seen[p.Key]
		if !known {
			before = -1
			if n, found := payload(p.Key); found {
				before = n
			}
		}
		if before >= 0 {
			after.Records--
			after.Bytes -= before
		}
		seen[p.Key] = -1
		if p.Value != nil {
			seen[p.Key] = Payload(p.Key, p.Value)
			after.Records++
			after.Bytes += seen[p.Key]
		}
	}
	switch {
	case b.MaxRecords > 0 && after.Records > max(b.MaxRecords, now.Records):
		return ErrTooManyRecords
	case b.MaxBytes > 0 && after.Bytes > max(b.MaxBytes, now.Bytes):
		return ErrRecordsTooLarge
	}
	return nil
}
