import { Hono } from 'hono'
import * as z from 'zod'
import packageJson from '../../package.json' with { type: 'json' }
import { json } from './answer.ts'
import type { Env } from './env.ts'
import { PROBLEM_MEDIA_TYPE, ProblemDetails } from './problem.ts'

type JsonObject = Record<string, unknown>

export type OpenApiOptions = {
  paths: JsonObject
  /** What requests and answers hold, by the name in the description. */
  schemas: { input: Record<string, z.ZodType>; output: Record<string, z.ZodType> }
}

/** Points at a schema by its name. */
export const schemaRef = (name: string) => ({ $ref: `#/components/schemas/${name}` })

/** An answer whose body is problem details. */
export const problemOf = (description: string, headers: JsonObject = {}) => ({
  description,
  headers: { ...commonHeaders, ...headers },
  content: { [PROBLEM_MEDIA_TYPE]: { schema: schemaRef('Problem') } },
})

/** What every answer carries. */
export const commonHeaders = {
  'X-Request-Id': { description: "The request's own X-Request-Id, or a new one.", schema: { type: 'string' } },
}

const retryAfter = { 'Retry-After': { description: 'Seconds to wait.', schema: { type: 'integer' } } }

/** The problems that any request can meet. */
export const commonProblems = {
  400: problemOf('What cannot be parsed: the request line, headers, path, query or body.'),
  408: problemOf('The request did not arrive in time.'),
  417: problemOf('The request expects something other than 100-continue.'),
  431: problemOf('The headers are too large.'),
  500: problemOf('A fault of the service.'),
  501: problemOf('The body has a transfer coding other than chunked.'),
  503: problemOf('The database or this process cannot take the request now.', retryAfter),
}

function jsonSchemas(named: Record<string, z.ZodType>, io: 'input' | 'output') {
  const registry = z.registry<{ id: string }>()
  for (const [id, schema] of Object.entries(named)) registry.add(schema, { id })
  const { schemas } = z.toJSONSchema(registry, { io, uri: (id) => schemaRef(id).$ref })
  return Object.fromEntries(Object.entries(schemas).map(([id, { $id, $schema, id: _, ...schema }]) => [id, schema]))
}

const statusPath = (operationId: string, summary: string, problems: JsonObject) => ({
  get: {
    operationId,
    summary,
    tags: ['health'],
    responses: {
      200: {
        description: 'Yes.',
        headers: commonHeaders,
        content: {
          'application/json': {
            schema: { type: 'object', properties: { status: { const: 'ok' } }, required: ['status'] },
            examples: { ok: { value: { status: 'ok' } } },
          },
        },
      },
      ...problems,
    },
  },
})

/** The OpenAPI 3.1 description of the service, from the schemas that validate. */
export function describe({ paths, schemas }: OpenApiOptions) {
  const { 503: unavailable, ...problems } = commonProblems
  return {
    openapi: '3.1.1',
    info: {
      title: packageJson.name,
      version: packageJson.version,
      description: packageJson.description,
      license: { name: packageJson.license, identifier: packageJson.license },
    },
    servers: [{ url: '/' }],
    paths: {
      ...paths,
      '/livez': statusPath('livez', 'Is the process alive?', problems),
      '/readyz': statusPath('readyz', 'Can it serve: does the database answer?', { ...problems, 503: unavailable }),
    },
    components: {
      schemas: {
        ...jsonSchemas(schemas.input, 'input'),
        ...jsonSchemas({ ...schemas.output, Problem: ProblemDetails }, 'output'),
      },
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
