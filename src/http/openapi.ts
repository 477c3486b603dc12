import { Hono } from 'hono'
import * as z from 'zod'
import packageJson from '../../package.json' with { type: 'json' }
import type { Refusal } from '../resource.ts'
import { json } from './answer.ts'
import type { Env } from './env.ts'
import { IDEMPOTENCY_KEY } from './idempotency.ts'
import { bodyTooLarge } from './limits.ts'
import { pageSchema } from './list.ts'
import { NDJSON_MEDIA_TYPE } from './ndjson.ts'
import { PathId } from './path.ts'
import { INTERNAL, PROBLEM_MEDIA_TYPE, Problem, problemDetails, problemJson, unavailableProblem } from './problem.ts'
import { refusal } from './refusal.ts'
import { PARSER_PROBLEMS } from './refuse.ts'
import { PATCH_MEDIA_TYPES } from './validate.ts'

type JsonObject = Record<string, unknown>
type Schemas = Record<string, z.ZodType>
type Fields = z.ZodObject<Schemas>

export type ResourceOptions = {
  /** The words for one of it and for several, such as `user` and `users`. */
  name: string
  plural: string
  /** Where the collection is, such as `/users`. */
  path: string
  /** The schema of the list's query. The last call on each parameter is `meta`: its meaning and an example. */
  query: Fields
  /** The schemas of the body: of POST and PUT, and of PATCH. */
  input: Fields
  patch: Fields
  /** The schema of an answer. Its example has the first example of each member. */
  item: Fields
}

export type OpenApiOptions = {
  /** Each is called when the description is first asked for. */
  resources: readonly (() => ReturnType<typeof describeResource>)[]
  maxBodyBytes: number
}

const ANY = [400, 408, 431, 500, 503]
const BODY = [409, 413, 415, 422]
const ITEM = [404, 412]
/** How each operation can fail. */
const FAILURES = {
  list: ANY,
  create: [...BODY, ...ANY],
  get: [...ITEM, ...ANY],
  replace: [...ITEM, ...BODY, ...ANY],
  patch: [...ITEM, ...BODY, ...ANY],
  delete: [...ITEM, 409, ...ANY],
}
/** One of each, for the examples. */
const REFUSALS: Refusal[] = [
  { outcome: 'missing' },
  { outcome: 'stale' },
  { outcome: 'conflict', fields: ['name'] },
  { outcome: 'referenced', by: 'parts' },
  { outcome: 'reference-missing', field: 'ownerId' },
  { outcome: 'key-reused' },
]

const DESCRIPTION = `${packageJson.description}.

Errors are problem details (RFC 9457). An ETag names a version: \`If-Match\` makes a change conditional, and
\`If-None-Match\` spares sending what the caller has (RFC 9110). There is no authentication: whoever can reach the
service can use it.`
const streamDescription = (plural: string) =>
  `By id, one page at a time. With \`Accept: ${NDJSON_MEDIA_TYPE}\` all ${plural} come as a stream of lines, each a JSON object. Only \`cursor\` goes with it. If the stream fails, its last line is a problem.`
/** Of answers that their examples do not explain. */
const PROBLEM_DESCRIPTIONS: Record<number, string> = {
  400: 'The request line, the headers, the path, the query or the body cannot be parsed.',
  422: 'The body breaks a rule: `errors` points at each fault. Or the Idempotency-Key was used with another body: `type` tells.',
}
const REQUEST_ID_EXAMPLE = '5f0c9a1e-8f5e-4c0e-9d55-2b7a3f1c6d90'
const JSON_ONLY = ['application/json']

const capitalized = (word: string) => word.charAt(0).toUpperCase() + word.slice(1)
const exampleOf = ({ shape }: Fields) =>
  Object.fromEntries(
    Object.entries(shape).map(([name, schema]) => [name, z.toJSONSchema(schema, { io: 'input' }).examples?.[0]]),
  )
const ref = (kind: string, name: string) => ({ $ref: `#/components/${kind}/${name}` })
const refs = (statuses: number[]) =>
  Object.fromEntries(statuses.map((status) => [status, ref('responses', `Problem${status}`)]))

function content(mediaTypes: readonly string[], schema: object, values: unknown[]) {
  const examples = Object.fromEntries(values.map((value, index) => [`example${index + 1}`, { value }]))
  return Object.fromEntries(mediaTypes.map((mediaType) => [mediaType, { schema, examples }]))
}
const jsonContent = (schema: string, value: unknown) => content(JSON_ONLY, ref('schemas', schema), [value])

const response = (description: string, headers: string[], content?: JsonObject) => ({
  description,
  headers: Object.fromEntries(['X-Request-Id', ...headers].map((name) => [name, ref('headers', name)])),
  ...(content && { content }),
})

/** What the service answers to what fails, by the names of the components. The examples are made by the service's own code. */
function failures(maxBodyBytes: number) {
  const problems = [
    ...Object.values(PARSER_PROBLEMS),
    ...REFUSALS.map((refused) => refusal('item', refused)),
    bodyTooLarge(maxBodyBytes),
    new Problem(415, 'The body must be application/json in UTF-8.'),
    INTERNAL,
    unavailableProblem('The database cannot take this request now.'),
  ]
  const components = [...Map.groupBy(problems, ({ status }) => status)].map(([status, same]) => {
    const description = PROBLEM_DESCRIPTIONS[status] ?? same.map(({ message }) => message).join(' Or: ')
    const headers = Object.keys(same[0]?.options.headers ?? {})
    const examples = same.map((problem) => JSON.parse(problemJson(problem, '/path', REQUEST_ID_EXAMPLE)))
    const body = content([PROBLEM_MEDIA_TYPE], ref('schemas', 'Problem'), examples)
    return [`Problem${status}`, response(description, headers, body)]
  })
  return Object.fromEntries(components)
}

const parametersOf = (place: 'path' | 'query', parameters: Fields) =>
  Object.entries(parameters.shape).map(([name, schema]) => {
    // zod leaves out the examples and the default of what is transformed.
    const { $schema, description, examples, ...rest } = { ...z.toJSONSchema(schema, { io: 'input' }), ...schema.meta() }
    return { name, in: place, required: place === 'path', description, schema: rest, example: examples?.[0] }
  })

/** Answers are open: a later release may add members, and write values in another form. */
const OPEN = { additionalProperties: undefined, pattern: undefined }

function jsonSchemas(named: Schemas, io: 'input' | 'output') {
  const registry = z.registry<{ id: string }>()
  for (const [id, schema] of Object.entries(named)) registry.add(schema, { id })
  const { schemas } = z.toJSONSchema(registry, {
    io,
    uri: (id) => ref('schemas', id).$ref,
    override: ({ jsonSchema }) => io === 'output' && Object.assign(jsonSchema, OPEN),
  })
  return Object.fromEntries(Object.entries(schemas).map(([id, { $id, $schema, ...schema }]) => [id, schema]))
}

/** The paths of a collection and its items, and their schemas. */
export function describeResource(resource: ResourceOptions) {
  const { name, plural, path, input, item } = resource
  const Name = capitalized(name)
  const operation = (verb: keyof typeof FAILURES, noun: string, successes: JsonObject, more: JsonObject) => ({
    operationId: verb + capitalized(noun),
    summary: `${capitalized(verb)} ${noun}`,
    tags: [plural],
    ...more,
    responses: { ...successes, ...refs(FAILURES[verb]) },
  })
  const example = exampleOf(item)
  const page = response(`A page of ${plural}; or all of them, as a stream.`, ['Link'], {
    ...jsonContent(`${Name}Page`, { [plural]: [example], next: null }),
    ...content([NDJSON_MEDIA_TYPE], { type: 'string' }, [`${JSON.stringify(example)}\n`]),
  })
  const found = { 200: response(`The ${name}.`, ['ETag'], jsonContent(Name, example)) }
  const created = { 201: response(`The new ${name}.`, ['ETag', 'Location'], jsonContent(Name, example)) }
  const same = { 304: response('The caller has this version.', ['ETag']) }
  const bodyOf = (mediaTypes: readonly string[], schema: string) => ({
    requestBody: { required: true, content: content(mediaTypes, ref('schemas', schema), [exampleOf(input)]) },
  })
  const whole = bodyOf(JSON_ONLY, `${Name}Input`)
  const part = bodyOf(PATCH_MEDIA_TYPES, `${Name}Patch`)
  const conditions = { parameters: [ref('parameters', 'If-Match'), ref('parameters', 'If-None-Match')] }
  const retry = { parameters: [ref('parameters', 'Idempotency-Key')] }
  const query = { parameters: parametersOf('query', resource.query), description: streamDescription(plural) }
  return {
    paths: {
      [path]: {
        get: operation('list', plural, { 200: page }, query),
        post: operation('create', name, created, { ...retry, ...whole }),
      },
      [`${path}/{id}`]: {
        parameters: parametersOf('path', PathId),
        get: operation('get', name, { ...found, ...same }, conditions),
        put: operation('replace', name, found, { ...conditions, ...whole }),
        patch: operation('patch', name, found, { ...conditions, ...part }),
        delete: operation('delete', name, { 204: response('Deleted.', []) }, conditions),
      },
    },
    schemas: {
      ...jsonSchemas({ [`${Name}Input`]: input, [`${Name}Patch`]: resource.patch }, 'input'),
      ...jsonSchemas({ [Name]: item, [`${Name}Page`]: pageSchema(plural, item) }, 'output'),
    },
  }
}

const header = (description: string, schema: JsonObject, example: unknown) => ({ description, schema, example })
const string = { type: 'string' }
const headers = {
  'X-Request-Id': header("The request's own X-Request-Id, or a new one.", string, REQUEST_ID_EXAMPLE),
  'Retry-After': header('Seconds to wait before the next attempt.', { type: 'integer', minimum: 1 }, 1),
  ETag: header('The version.', string, '"1"'),
  Link: header('The next page (RFC 8288).', string, '</path?cursor=...>; rel="next"'),
  Location: header('Where it is.', { type: 'string', format: 'uri-reference' }, '/path/1'),
}

const requestHeader = (name: string, ...rest: Parameters<typeof header>) => ({ name, in: 'header', ...header(...rest) })
const KEY = { type: 'string', pattern: IDEMPOTENCY_KEY.source }
const RETRY = 'Makes a retry safe: the same key and body get the same answer for as long as what they created exists.'
const parameters = {
  'If-Match': requestHeader('If-Match', 'Only if it is still at one of these versions (RFC 9110).', string, '"1"'),
  'If-None-Match': requestHeader('If-None-Match', 'Only if it is at none of these (RFC 9110).', string, '"2"'),
  'Idempotency-Key': requestHeader('Idempotency-Key', RETRY, KEY, '9f8e7d6c'),
}

const health = (operationId: string, summary: string, statuses: number[]) => {
  const healthy = response('Yes.', [], jsonContent('Health', { status: 'ok' }))
  return { get: { operationId, summary, tags: ['health'], responses: { 200: healthy, ...refs(statuses) } } }
}

function describe({ resources, maxBodyBytes }: OpenApiOptions) {
  const described = resources.map((describeOne) => describeOne())
  const { name: title, version, license } = packageJson
  const schemas = { Health: z.object({ status: z.literal('ok') }), Problem: problemDetails() }
  return {
    openapi: '3.1.1',
    info: { title, version, description: DESCRIPTION, license: { name: license, identifier: license } },
    servers: [{ url: '/' }],
    security: [],
    paths: Object.assign({}, ...described.map(({ paths }) => paths), {
      '/livez': health('getLiveness', 'Tell whether the process is alive', [400, 408, 431, 500]),
      '/readyz': health('getReadiness', 'Tell whether the database answers', ANY),
    }),
    components: {
      schemas: Object.assign(jsonSchemas(schemas, 'output'), ...described.map(({ schemas }) => schemas)),
      responses: failures(maxBodyBytes),
      headers,
      parameters,
    },
  }
}

/** `/openapi.json`: OpenAPI 3.1, made when it is first asked for. */
export function openApi(options: OpenApiOptions) {
  let description: ReturnType<typeof describe> | undefined
  return new Hono<Env>().get('/openapi.json', (c) => {
    description ??= describe(options)
    return json(c, description, 200)
  })
}
