{{/* Labels of every object. Call: include "rankwise.labels" (list $ "component") */}}
{{- define "rankwise.labels" -}}
{{- $root := index . 0 -}}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
{{ include "rankwise.selector" . }}
{{- end }}

{{/* Labels that select pods: they never change over upgrades. */}}
{{- define "rankwise.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: rankwise
app.kubernetes.io/instance: {{ $root.Release.Name | quote }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{/* Reference of one of our images. Call: include "rankwise.image" (list $ .Values.images.suggestion) */}}
{{- define "rankwise.image" -}}
{{- $root := index . 0 -}}{{- $image := index . 1 -}}
{{ $image.repository }}:{{ $image.tag | default $root.Chart.AppVersion }}
{{- end }}

{{/* Every namespace in which Experiments run, as a JSON list: {"names": [...]} */}}
{{- define "rankwise.namespaces" -}}
{{- dict "names" (uniq (prepend .Values.experimentNamespaces .Release.Namespace)) | toJson -}}
{{- end }}

{{/* The Secret with the S3 server's address and keys. */}}
{{- define "rankwise.s3.secret" -}}
{{ .Values.s3.existingSecret | default "rankwise-s3" }}
{{- end }}

{{/* Not empty when there is, or will be, a Secret for S3. */}}
{{- define "rankwise.s3.used" -}}
{{- if or .Values.s3.existingSecret .Values.s3.endpoint .Values.s3.server.enabled }}yes{{ end -}}
{{- end }}

{{- define "rankwise.pullSecrets" -}}
{{- with .Values.images.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . | quote }}
  {{- end }}
{{- end }}
{{- end }}

{{/* A container's share of the "restricted" Pod Security level, and a root file system that cannot be written. */}}
{{- define "rankwise.containerSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "rankwise.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{/* What all pods of this chart have. Call: include "rankwise.pod" (list $ needsToken) */}}
{{- define "rankwise.pod" -}}
{{- $root := index . 0 -}}
automountServiceAccountToken: {{ index . 1 }}
enableServiceLinks: false
securityContext:
  {{- include "rankwise.podSecurity" $root | nindent 2 }}
{{- with $root.Values.pods.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $root.Values.pods.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* A claim's specification. Call with a dictionary that has size, storageClass, accessModes. */}}
{{- define "rankwise.claim" -}}
accessModes:
  {{- toYaml .accessModes | nindent 2 }}
{{- with .storageClass }}
storageClassName: {{ . | quote }}
{{- end }}
resources:
  requests:
    storage: {{ .size | quote }}
{{- end }}

{{/* Short commands of ours: exit code 2 (wrong input) will not go away by trying again, everything else may. */}}
{{- define "rankwise.jobSpec" -}}
backoffLimit: 3
activeDeadlineSeconds: 240
ttlSecondsAfterFinished: 600
podFailurePolicy:
  rules:
    - action: FailJob
      onExitCodes:
        operator: In
        values: [2]
{{- end }}

{{- define "rankwise.commandResources" -}}
requests:
  cpu: 50m
  memory: 128Mi
limits:
  memory: 512Mi
{{- end }}

{{/* What Katib may be asked for. Its own `pbt` and `tpe` keep their names. */}}
{{- define "rankwise.algorithms" -}}
{{- toJson (dict "names" (list "language-bo" "optuna-tpe" "rankwise-pbt")) }}
{{- end }}

{{/* What Katib is told: one item of runtime.suggestions in ConfigMap katib-config.
Call: include "rankwise.entry" (list $ "language-bo") */}}
{{- define "rankwise.entry" -}}
{{- $algorithm := index . 1 -}}
{{- with index . 0 -}}
algorithmName: {{ $algorithm }}
image: {{ include "rankwise.image" (list . .Values.images.suggestion) | quote }}
imagePullPolicy: {{ .Values.images.pullPolicy }}
command: [rankwise, serve-suggestions]
args:
  - --address=0.0.0.0:6789
  - --namespace=$(POD_NAMESPACE)
  - --metrics-address=0.0.0.0:9464
  - --log-format={{ .Values.suggestion.logFormat }}
  - --log-level={{ .Values.suggestion.logLevel }}
env:
  # Whose entry this is: `rankwise register` and `rankwise unregister` touch no other.
  - name: RANKWISE_REGISTERED_BY
    value: {{ printf "%s/%s" .Release.Namespace .Release.Name }}
  - name: POD_NAMESPACE
    valueFrom:
      fieldRef:
        fieldPath: metadata.namespace
  {{- with .Values.suggestion.extraEnv }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
envFrom:
  - secretRef:
      name: {{ include "rankwise.s3.secret" . | quote }}
      optional: true
ports:
  # Katib adds its own, 6789, and refuses an entry that has it already.
  - name: metrics
    containerPort: 9464
resources:
  {{- toYaml .Values.suggestion.resources | nindent 2 }}
startupProbe: # torch and the language model load first
  grpc:
    port: 6789
    service: manager.v1beta1.Suggestion
  periodSeconds: 3
  timeoutSeconds: 5
  failureThreshold: 100
readinessProbe:
  grpc:
    port: 6789
    service: manager.v1beta1.Suggestion
  periodSeconds: 10
  timeoutSeconds: 10
livenessProbe: # a fit takes both cores for seconds; only a service that answers nothing for minutes is dead
  grpc:
    port: 6789
    service: manager.v1beta1.Suggestion
  periodSeconds: 30
  timeoutSeconds: 10
  failureThreshold: 10
securityContext:
  {{- include "rankwise.containerSecurity" . | nindent 2 }}
serviceAccountName: rankwise-suggestion
# Of Experiments with resumePolicy FromVolume: vectors of the search space outlive the service.
volumeMountPath: /var/cache/rankwise
persistentVolumeClaimSpec:
  {{- include "rankwise.claim" .Values.suggestion.volume | nindent 2 }}
{{- end }}
{{- end }}

{{/* Mistakes that the schema cannot see. */}}
{{- define "rankwise.validate" -}}
{{- $s3 := .Values.s3 -}}
{{- if and $s3.existingSecret (or $s3.endpoint $s3.accessKeyId $s3.secretAccessKey) -}}
{{- fail "s3.existingSecret holds the address and the keys: leave s3.endpoint, s3.accessKeyId and s3.secretAccessKey empty" -}}
{{- end -}}
{{- if and $s3.endpoint $s3.server.enabled -}}
{{- fail "s3.endpoint is another server's: leave it empty with s3.server.enabled" -}}
{{- end -}}
{{- if and $s3.endpoint (not (and $s3.accessKeyId $s3.secretAccessKey)) -}}
{{- fail "s3.endpoint needs s3.accessKeyId and s3.secretAccessKey, or a Secret of yours in s3.existingSecret" -}}
{{- end -}}
{{- if ne (empty $s3.accessKeyId) (empty $s3.secretAccessKey) -}}
{{- fail "s3.accessKeyId and s3.secretAccessKey go together" -}}
{{- end -}}
{{- if and $s3.accessKeyId (not (include "rankwise.s3.used" .)) -}}
{{- fail "s3.accessKeyId is given, but neither s3.endpoint nor s3.server.enabled" -}}
{{- end -}}
{{- if and .Values.models.prepare.references (not (or .Values.models.enabled .Values.models.existingClaim)) -}}
{{- fail "models.prepare.references needs a volume: models.enabled or models.existingClaim" -}}
{{- end -}}
{{- end }}

{{/* Pods of Katib itself. Call: include "rankwise.peer.katib" (list $ "controller") */}}
{{- define "rankwise.peer.katib" -}}
{{- $root := index . 0 -}}
namespaceSelector:
  matchLabels:
    kubernetes.io/metadata.name: {{ $root.Values.katib.namespace | quote }}
podSelector:
  matchLabels:
    katib.kubeflow.org/component: {{ index . 1 }}
{{- end }}

{{- define "rankwise.egress.dns" -}}
{{- $dns := .Values.networkPolicies.dns -}}
- to:
    - namespaceSelector:
        matchLabels:
          {{- toYaml $dns.namespaceLabels | nindent 10 }}
    {{- range $dns.cidrs }}
    - ipBlock:
        cidr: {{ . }}
    {{- end }}
  ports:
    - port: 53
      protocol: UDP
    - port: 53
      protocol: TCP
{{- end }}

{{/* Addresses and ports outside; no addresses means any. */}}
{{- define "rankwise.egress.addresses" -}}
{{- $to := . -}}
- ports:
    {{- range $to.ports }}
    - port: {{ . }}
    {{- end }}
  {{- with $to.cidrs }}
  to:
    {{- range . }}
    - ipBlock:
        cidr: {{ . }}
    {{- end }}
  {{- end }}
{{- end }}

{{- define "rankwise.egress.apiServer" -}}
{{- include "rankwise.egress.addresses" .Values.networkPolicies.apiServer }}
{{- end }}

{{- define "rankwise.egress.s3" -}}
{{- if .Values.s3.server.enabled -}}
- to:
    - namespaceSelector:
        matchLabels:
          kubernetes.io/metadata.name: {{ .Release.Namespace | quote }}
      podSelector:
        matchLabels:
          {{- include "rankwise.selector" (list . "s3") | nindent 10 }}
  ports:
    - port: 8333
{{- else if include "rankwise.s3.used" . -}}
{{- include "rankwise.egress.addresses" .Values.networkPolicies.s3 }}
{{- end -}}
{{- end }}
