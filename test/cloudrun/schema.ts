import { Ajv } from 'ajv'

/**
 * JSON Schemas of cloudrun/*.yaml: the documented fields of Cloud Run's Service and Job, of which those that we use have
 * their types and bounds (cloud.google.com/run/docs/reference/yaml/v1, knative.dev/docs/serving).
 */

const text = { type: 'string', minLength: 1 }
const seconds = (maximum: number) => ({ type: 'integer', minimum: 1, maximum })
/** Annotations are text, also where they are numbers. */
const count = { type: 'string', pattern: '^\\d+$' }
const truth = { enum: ['true', 'false'] }

/** An object with these members and no others. */
const object = (properties: Record<string, object>, required: string[] = []) => ({
  type: 'object',
  properties,
  required,
  additionalProperties: false,
})

const name = { type: 'string', pattern: '^[a-z]([a-z0-9-]{0,61}[a-z0-9])?$' }
const port = { type: 'integer', minimum: 1, maximum: 65_535 }

const variable = {
  ...object(
    {
      // These are the platform's own.
      name: { type: 'string', pattern: '^(?!PORT$|K_|CLOUD_RUN_)[A-Za-z_][A-Za-z0-9_]*$' },
      value: { type: 'string' },
      valueFrom: object({ secretKeyRef: object({ name, key: text }, ['name', 'key']) }, ['secretKeyRef']),
    },
    ['name'],
  ),
  oneOf: [{ required: ['value'] }, { required: ['valueFrom'] }],
}

const probeTimes = {
  initialDelaySeconds: { type: 'integer', minimum: 0, maximum: 240 },
  timeoutSeconds: seconds(240),
  periodSeconds: seconds(240),
  failureThreshold: { type: 'integer', minimum: 1 },
  successThreshold: { const: 1 },
}
const httpGet = object({ path: { type: 'string', pattern: '^/' }, port }, ['path'])
const startupProbe = {
  ...object({ ...probeTimes, httpGet, tcpSocket: object({ port }) }),
  oneOf: [{ required: ['httpGet'] }, { required: ['tcpSocket'] }],
}
/** Cloud Run has none over TCP. */
const livenessProbe = object({ ...probeTimes, httpGet }, ['httpGet'])

const task = {
  name,
  image: { type: 'string', pattern: '^[a-z0-9.-]+/[a-z0-9./_-]+(:[\\w.-]+)?(@sha256:[0-9a-f]{64})?$' },
  args: { type: 'array', items: text },
  env: { type: 'array', items: variable },
  resources: object({
    // More requests than one at a time need a whole CPU.
    limits: object({ cpu: { enum: ['1', '2', '4', '6', '8'] }, memory: { type: 'string', pattern: '^\\d+(Mi|Gi)$' } }, [
      'cpu',
      'memory',
    ]),
  }),
}
const server = {
  ...task,
  ports: {
    type: 'array',
    items: object({ name: { enum: ['http1', 'h2c'] }, containerPort: port }, ['containerPort']),
    minItems: 1,
    maxItems: 1,
  },
  livenessProbe,
}

const one = (properties: Record<string, object>) => ({
  type: 'array',
  items: object(properties, ['image']),
  minItems: 1,
  maxItems: 1,
})

const instances = { type: 'string', pattern: '^[\\w.:-]+:[\\w-]+:[a-z][a-z0-9-]*(,[\\w.:-]+)*$' }
const account = { type: 'string', pattern: '^[a-z][a-z0-9-]{4,28}[a-z0-9]@[\\w.:-]+\\.iam\\.gserviceaccount\\.com$' }
const scale = { 'autoscaling.knative.dev/minScale': count, 'autoscaling.knative.dev/maxScale': count }

/** A Service of serving.knative.dev/v1, by what may differ between the platforms. */
const service = (metadata: object, revision: object, spec: Record<string, object>, container: Record<string, object>) =>
  object(
    {
      apiVersion: { const: 'serving.knative.dev/v1' },
      kind: { const: 'Service' },
      metadata,
      spec: object(
        {
          template: object(
            {
              metadata: object({ annotations: revision }),
              spec: object(
                {
                  ...spec,
                  // 0 is no limit in Knative, and not taken by Cloud Run.
                  containerConcurrency: { type: 'integer', minimum: 1, maximum: 1000 },
                  containers: one(container),
                },
                ['containers'],
              ),
            },
            ['spec'],
          ),
        },
        ['template'],
      ),
    },
    ['apiVersion', 'kind', 'metadata', 'spec'],
  )

export const cloudRunService = service(
  object(
    {
      name,
      annotations: object({
        'run.googleapis.com/minScale': count,
        'run.googleapis.com/maxScale': count,
        'run.googleapis.com/ingress': { enum: ['all', 'internal', 'internal-and-cloud-load-balancing'] },
        'run.googleapis.com/invoker-iam-disabled': truth,
      }),
    },
    ['name'],
  ),
  object({
    ...scale,
    'run.googleapis.com/startup-cpu-boost': truth,
    'run.googleapis.com/cpu-throttling': truth,
    'run.googleapis.com/execution-environment': { enum: ['gen1', 'gen2'] },
    'run.googleapis.com/cloudsql-instances': instances,
  }),
  { serviceAccountName: account, timeoutSeconds: seconds(3600) },
  { ...server, startupProbe },
)

/** Knative's own longest time-out is 600 s, unless it is configured. */
export const knativeService = service(
  object({ name }, ['name']),
  object(scale),
  { serviceAccountName: name, timeoutSeconds: seconds(600) },
  server,
)

export const cloudRunJob = object(
  {
    apiVersion: { const: 'run.googleapis.com/v1' },
    kind: { const: 'Job' },
    metadata: object({ name }, ['name']),
    spec: object(
      {
        template: object(
          {
            metadata: object({ annotations: object({ 'run.googleapis.com/cloudsql-instances': instances }) }),
            spec: object(
              {
                taskCount: { type: 'integer', minimum: 1, maximum: 10_000 },
                parallelism: { type: 'integer', minimum: 0 },
                template: object(
                  {
                    spec: object(
                      {
                        serviceAccountName: account,
                        timeoutSeconds: seconds(604_800),
                        maxRetries: { type: 'integer', minimum: 0, maximum: 10 },
                        containers: one(task),
                      },
                      ['containers'],
                    ),
                  },
                  ['spec'],
                ),
              },
              ['template'],
            ),
          },
          ['spec'],
        ),
      },
      ['template'],
    ),
  },
  ['apiVersion', 'kind', 'metadata', 'spec'],
)

const ajv = new Ajv({ allErrors: true, strictTypes: false, strictRequired: false })

/** What a schema finds wrong. */
export function problemsOf(schema: object, value: unknown): string[] {
  const validate = ajv.compile(schema)
  validate(value)
  return (validate.errors ?? []).map(({ instancePath, message }) => `${instancePath} ${message}`)
}
