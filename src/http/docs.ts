import { Hono } from 'hono'
import * as z from 'zod'
import packageJson from '../../package.json' with { type: 'json' }
import { json } from './answer.ts'
import type { Env } from './env.ts'
import { PROBLEM_MEDIA_TYPE, type ProblemDetails, problemDetails, TITLES } from './problem.ts'

type JsonObject = Record<string, unknown>

export type OpenApiOptions = {
  paths: JsonObject
  /** What requests and answers hold, by the name in the description. */
  schemas(): { input: Record<string, z.ZodType>; output: Record<string, z.ZodType> }
  /** What operations share, by the name in the description. */
  components: { responses: JsonObject; headers: JsonObject; parameters: JsonObject }
}

/** Points at a component by its name. */
export const ref = (kind: 'schemas' | 'responses' | 'headers' | 'parameters', name: string) => ({
  $ref: `#/components/${kind}/${name}`,
})

/** What every answer carries. */
export const commonHeaders = { 'X-Request-Id': ref('headers', 'RequestId') }

const INSTANCE = '/users/1'
const REQUEST_ID = '5f0c9a1e-8f5e-4c0e-9d55-2b7a3f1c6d90'

type ProblemExample = Pick<ProblemDetails, 'detail'> & Partial<ProblemDetails>

/** An answer whose body is problem details; the examples give what is not the same in all of them. */
export const problemOf = (status: number, description: string, examples: Record<string, ProblemExample>) => ({
  description,
  headers: commonHeaders,
  content: {
    [PROBLEM_MEDIA_TYPE]: {
      schema: ref('schemas', 'Problem'),
      examples: Object.fromEntries(
        Object.entries(examples).map(([name, { type = 'about:blank', detail, instance = INSTANCE, ...rest }]) => [
          name,
          { value: { type, title: TITLES[status], status, detail, instance, requestId: REQUEST_ID, ...rest } },
        ]),
      ),
    },
  },
})

const responses = {
  BadRequest: problemOf(400, 'The request line, the headers, the path, the query or the body cannot be parsed.', {
    query: { detail: 'limit must be a whole number from 1 to 1000', instance: '/users' },
  }),
  RequestTimeout: problemOf(408, 'The request did not arrive in time.', {
    slow: { detail: 'The request did not arrive in time.', instance: '' },
  }),
  HeadersTooLarge: problemOf(431, 'The headers are too large.', {
    headers: { detail: 'The headers must have at most 16384 bytes.', instance: '' },
  }),
  InternalError: problemOf(500, 'A fault of the service.', {
    fault: { detail: "Internal error. The server's log has details under this requestId." },
  }),
  Unavailable: {
    ...problemOf(503, 'The database or this process cannot take the request now.', {
      database: { detail: 'The database cannot take this request now.' },
      busy: { detail: 'Too many requests are under way.' },
    }),
    headers: { ...commonHeaders, 'Retry-After': ref('headers', 'RetryAfter') },
  },
}

const headers = {
  RequestId: { description: "The request's own X-Request-Id, or a new one.", schema: { type: 'string' } },
  RetryAfter: { description: 'Seconds to wait before the next attempt.', schema: { type: 'integer' } },
}

/** The problems that any request can meet. */
export const commonProblems = {
  400: ref('responses', 'BadRequest'),
  408: ref('responses', 'RequestTimeout'),
  431: ref('responses', 'HeadersTooLarge'),
  500: ref('responses', 'InternalError'),
  503: ref('responses', 'Unavailable'),
}

function jsonSchemas(named: Record<string, z.ZodType>, io: 'input' | 'output') {
  const registry = z.registry<{ id: string }>()
  for (const [id, schema] of Object.entries(named)) registry.add(schema, { id })
  const { schemas } = z.toJSONSchema(registry, { io, uri: (id) => ref('schemas', id).$ref })
  return Object.fromEntries(Object.entries(schemas).map(([id, { $id, $schema, ...schema }]) => [id, schema]))
}

const healthy = {
  description: 'Yes.',
  headers: commonHeaders,
  content: {
    'application/json': {
      schema: { type: 'object', properties: { status: { const: 'ok' } }, required: ['status'] },
      examples: { ok: { value: { status: 'ok' } } },
    },
  },
}

const statusPath = (operationId: string, summary: string, problems: JsonObject) => ({
  get: { operationId, summary, tags: ['health'], responses: { 200: healthy, ...problems } },
})

const DESCRIPTION = `${packageJson.description}.

Errors are problem details (RFC 9457). A user's version is its ETag: \`If-Match\` makes a change conditional, and
\`If-None-Match\` spares sending what the caller has (RFC 9110). There is no authentication: whoever can reach the
service can use it.`

/** The OpenAPI 3.1 description of the service, from the schemas that validate. */
export function describe({ paths, schemas, components }: OpenApiOptions) {
  const { input, output } = schemas()
  const { 503: _, ...problems } = commonProblems
  return {
    openapi: '3.1.1',
    info: {
      title: packageJson.name,
      version: packageJson.version,
      description: DESCRIPTION,
      license: { name: packageJson.license, identifier: packageJson.license },
    },
    servers: [{ url: '/' }],
    paths: {
      ...paths,
      '/livez': statusPath('getLiveness', 'Tell whether the process is alive', problems),
      '/readyz': statusPath('getReadiness', 'Tell whether the database answers', commonProblems),
    },
    components: {
      schemas: {
        ...jsonSchemas(input, 'input'),
        ...jsonSchemas({ ...output, Problem: problemDetails() }, 'output'),
      },
      responses: { ...responses, ...components.responses },
      headers: { ...headers, ...components.headers },
      parameters: components.parameters,
    },
  }
}

/** `/openapi.json`, made when it is first asked for. */
export function openApi(options: OpenApiOptions) {
  let description: ReturnType<typeof describe> | undefined
  return new Hono<Env>().get('/openapi.json', (c) => {
    description ??= describe(options)
    return json(c, description, 200)
  })
}
