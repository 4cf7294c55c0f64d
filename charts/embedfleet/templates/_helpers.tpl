{{/* One name for all that belongs to the operator. A fleet's own objects are called after the fleet. */}}
{{- define "embedfleet.name" -}}
{{- $release := .Release.Name -}}
{{- if not (contains "embedfleet" $release) }}{{ $release = printf "%s-embedfleet" $release }}{{ end -}}
{{- printf "%s-operator" ($release | trunc 50 | trimSuffix "-") -}}
{{- end }}

{{/* Two releases of one name may stand in two namespaces, each with its own. */}}
{{- define "embedfleet.clusterName" -}}
{{- printf "%s-%s" .Release.Namespace (include "embedfleet.name" .) -}}
{{- end }}

{{- define "embedfleet.serviceAccount" -}}
{{- default (include "embedfleet.name" .) .Values.serviceAccount.name -}}
{{- end }}

{{- define "embedfleet.selector" -}}
app.kubernetes.io/name: embedfleet-operator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "embedfleet.labels" -}}
{{ include "embedfleet.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name (.Chart.Version | replace "+" "_") }}
{{- end }}

{{/* Called with a dict of `root`, `field` and `dockerfile`. */}}
{{- define "embedfleet.image" -}}
{{- $image := index .root.Values .field -}}
{{- $repository := required (printf "%s.repository is empty: no registry holds this image. Build %s, push it, and set %s.repository to where it is." .field .dockerfile .field) $image.repository -}}
{{- if $image.digest -}}
{{- printf "%s@%s" $repository $image.digest -}}
{{- else -}}
{{- printf "%s:%s" $repository (default .root.Chart.AppVersion $image.tag) -}}
{{- end -}}
{{- end }}

{{- define "embedfleet.operatorImage" -}}
{{- include "embedfleet.image" (dict "root" . "field" "image" "dockerfile" "operators/embedfleet_operator/Dockerfile") -}}
{{- end }}

{{/* What the Pod Security standard `restricted` asks for, and a root that nobody writes to. */}}
{{- define "embedfleet.podSecurity" -}}
runAsNonRoot: true
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "embedfleet.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}
