package letshare

import (
	"net/url"
	"testing"
)

func TestParametersAreReadAsTheFrontEndWritesThem(t *testing.T) {
	for _, test := range []struct{ query, want string }{
		{"", ""},
		{"userId", ""},
		{"userId=", ""},
		{"userId=anna:1b2c3d", "anna:1b2c3d"},
		{"token=x.y.z&userId=anna", "anna"},
		{"userId=first&userId=second", "first"},
		{"xuserId=a&userIdx=b&userid=c", ""},
		{"userId=王小明:x", "王小明:x"},
		{"userId=%E7%8E%8B", "王"},
		{"user%49d=a", "a"},
		{"userId=a%20b+c", "a b c"},
		{"userId=50%:x", "50%:x"},
		{"userId=50%25:x", "50%:x"},
		{"userId=%", "%"},
		{"userId=%4", "%4"},
		{"userId=%zz%41%4", "%zzA%4"},
		{"userId=a;b", "a;b"},
		{"userId=a=b==", "a=b=="},
		{"&&userId=a&&", "a"},
		{"=x&userId=a", "a"},
		{"pro_token=%zz;x&userId=a", "a"},
		{"userId=%ff", "\xff"},
	} {
		if got := param(test.query, "userId"); got != test.want {
			t.Errorf("%s: got %q, want %q", test.query, got, test.want)
		}
	}
}

func FuzzParam(f *testing.F) {
	for _, seed := range []string{"anna:1b2c3d", "50%", "a+b c&d=e;f", "王小明", "\xff%", "%%41"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, value string) {
		// Whatever a careful client escapes is understood.
		if got := param("a=b&userId="+url.QueryEscape(value)+"&c=d", "userId"); got != value {
			t.Errorf("%q became %q", value, got)
		}
		// What net/url understands is understood in the same way.
		if q, err := url.ParseQuery(value); err == nil {
			for name := range q {
				if got := param(value, name); got != q.Get(name) {
					t.Errorf("%q: %q is %q, want %q", value, name, got, q.Get(name))
				}
			}
		}
	})
}
