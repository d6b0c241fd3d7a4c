{{- define "sidelog.name" -}}
{{- default "sidelog" .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end }}

{{- define "sidelog.fullname" -}}
{{- $name := include "sidelog.name" . -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end }}

{{- define "sidelog.consumer.fullname" -}}
{{ include "sidelog.fullname" . }}-consumer
{{- end }}

{{- define "sidelog.consumer.selector" -}}
app.kubernetes.io/name: {{ include "sidelog.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: consumer
{{- end }}

{{- define "sidelog.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
app.kubernetes.io/name: {{ include "sidelog.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "sidelog.consumer.labels" -}}
{{ include "sidelog.labels" . }}
app.kubernetes.io/component: consumer
{{- end }}

{{- define "sidelog.consumer.serviceAccountName" -}}
{{- $account := .Values.consumer.serviceAccount -}}
{{- $account.name | default (ternary (include "sidelog.consumer.fullname" .) "default" $account.create) -}}
{{- end }}

{{- /* registry/repository@digest, or :tag. Input: image, and root for the chart's version. */ -}}
{{- define "sidelog.image" -}}
{{- $path := list .image.registry .image.repository | compact | join "/" -}}
{{- if .image.digest }}{{ $path }}@{{ .image.digest }}{{ else }}{{ $path }}:{{ .image.tag | default .version }}{{ end -}}
{{- end }}

{{- /* A quantity in KiB. */ -}}
{{- define "sidelog.kibibytes" -}}
{{- $units := dict "Ki" 1 "Mi" 1024 "Gi" 1048576 -}}
{{- mul (regexFind "^[0-9]+" .) (get $units (regexFind "[KMG]i$" .)) -}}
{{- end }}
