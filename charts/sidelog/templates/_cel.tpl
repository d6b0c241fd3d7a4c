{{- /*
A value as a literal of CEL. Every element is dyn(), for CEL's lists and maps are homogeneous. What follows "sidelog.cel:" in
a text is an expression: "http://127.0.0.1:sidelog.cel:E" becomes "http://127.0.0.1:" + E.
*/ -}}
{{- define "sidelog.cel" -}}
{{- if kindIs "map" . -}}
{{- $parts := list -}}
{{- range $key, $value := . }}{{ $parts = append $parts (printf "%s: dyn(%s)" ($key | toJson) (include "sidelog.cel" $value)) }}{{ end -}}
{{ printf "{%s}" (join ", " $parts) }}
{{- else if kindIs "slice" . -}}
{{- $parts := list -}}
{{- range . }}{{ $parts = append $parts (printf "dyn(%s)" (include "sidelog.cel" .)) }}{{ end -}}
{{ printf "[%s]" (join ", " $parts) }}
{{- else if kindIs "string" . -}}
{{- if contains "sidelog.cel:" . -}}
{{- $parts := regexSplit "sidelog\\.cel:" . 2 -}}
{{- if first $parts }}{{ first $parts | toRawJson }} + {{ end }}{{ last $parts }}
{{- else -}}
{{ toRawJson . }}
{{- end -}}
{{- else if and (kindIs "float64" .) (eq (floor .) .) -}}
{{ int64 . }}
{{- else -}}
{{ toRawJson . }}
{{- end -}}
{{- end }}
