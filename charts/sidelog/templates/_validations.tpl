{{- define "sidelog.validate" -}}
{{- $c := .Values.consumer -}}
{{- if and $c.autoscaling.enabled $c.keda.enabled }}{{ fail "consumer.autoscaling and consumer.keda both set the number of replicas: enable one of them" }}{{ end -}}
{{- if and $c.config $c.existingConfigMap }}{{ fail "consumer.config and consumer.existingConfigMap are both set: put the settings into one of them" }}{{ end -}}
{{- if gt (int $c.autoscaling.minReplicas) (int $c.autoscaling.maxReplicas) }}{{ fail "consumer.autoscaling.minReplicas is above maxReplicas: lower it" }}{{ end -}}
{{- if gt (int $c.keda.minReplicaCount) (int $c.keda.maxReplicaCount) }}{{ fail "consumer.keda.minReplicaCount is above maxReplicaCount: lower it" }}{{ end -}}
{{- if lt (int $c.terminationGracePeriodSeconds) 30 }}{{ fail "consumer.terminationGracePeriodSeconds is below 30: the consumer's shutdown.deadline is 25s" }}{{ end -}}
{{- if eq (int .Values.proxy.port) (int .Values.proxy.adminPort) }}{{ fail "proxy.port and proxy.adminPort are the same: give one of them another number" }}{{ end -}}
{{- if and .Values.injector.enabled (not (semverCompare ">=1.36.0-0" .Capabilities.KubeVersion.Version)) }}{{ fail "injector.enabled needs Kubernetes 1.36 (MutatingAdmissionPolicy v1): use the template sidelog.proxy.container or the kustomize component" }}{{ end -}}
{{- if and .Values.metrics.serviceMonitor.enabled (not $c.enabled) }}{{ fail "metrics.serviceMonitor is for the consumer: enable consumer, or use metrics.podMonitor" }}{{ end -}}
{{- if and (not $c.serviceAccount.create) (not $c.serviceAccount.name) $c.serviceAccount.annotations }}{{ fail "consumer.serviceAccount.annotations need consumer.serviceAccount.create: true" }}{{ end -}}
{{- $own := list "helm.sh/chart" "app.kubernetes.io/name" "app.kubernetes.io/instance" "app.kubernetes.io/version" "app.kubernetes.io/managed-by" "app.kubernetes.io/component" -}}
{{- range $key, $_ := merge (dict) .Values.commonLabels $c.podLabels }}{{ if has $key $own }}{{ fail "commonLabels and consumer.podLabels can't replace a label of the chart's own: use another name" }}{{ end }}{{ end -}}
{{- end }}
