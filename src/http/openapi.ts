import { Hono } from 'hono'
import * as z from 'zod'
import packageJson from '../../package.json' with { type: 'json' }
import type { Config } from '../config.ts'
import { json } from './answer.ts'
import type { Env } from './env.ts'

type Fields = z.ZodObject<Record<string, z.ZodType>>

export type ResourceOptions = {
  /** The words for one of it and for several, such as `user` and `users`; the second is its path as well. */
  name: string
  plural: string
  /** The schema of the list's query. The last call on each parameter is `meta`: its meaning and an example. */
  query: Fields
  /** The schemas of the body: of POST and PUT, and of PATCH. */
  input: Fields
  patch: Fields
  /** The schema of an answer. Here and above each member has an example, from which tools build an example of the whole. */
  item: Fields
}

/** Each of the resources is called when the description is first asked for. */
type OpenApiOptions = Config & { resources: readonly (() => ResourceOptions)[] }

/** What there is only where tokens are needed. */
const OF_AUTH = ['401', '403', 'Problem401', 'Problem403', 'WWW-Authenticate', 'security', 'securitySchemes']
/** What there is only where clients are limited. */
const OF_LIMITS = ['429', 'Problem429', 'QuotaExceeded', 'RateLimit-Policy', 'RateLimit']
const ACCESS = 'Calls need a token, which says who calls and what they may do.'
const NO_ACCESS = 'There is no authentication: whoever can reach the service can use it.'

const capitalized = (word: string) => word.charAt(0).toUpperCase() + word.slice(1)

/**
 * The template with a value for each of these words, and without what does not apply. A longer word is listed first:
 * `$Items` before `$Item`.
 */
function filled<T>(template: T, words: Record<string, string | number>, { auth, RATE_LIMIT }: Config): T {
  const { readScope = '', writeScope = '', tokens, iap } = auth ?? {}
  const all = { ...words, $readScope: readScope, $writeScope: writeScope, $access: auth ? ACCESS : NO_ACCESS }
  let text = JSON.stringify(template)
  for (const [word, value] of Object.entries(all)) text = text.replaceAll(word, String(value))
  const ofAuth = [...(auth ? [] : OF_AUTH), ...(tokens ? [] : ['accessToken']), ...(iap ? [] : ['iap'])]
  const absent = [...ofAuth, ...(RATE_LIMIT ? [] : OF_LIMITS)]
  return JSON.parse(text, (key, part) => {
    if (absent.includes(key)) return undefined
    return key === 'security' ? part.filter((way: object) => Object.keys(way).length > 0) : part
  })
}

const parametersOf = ({ shape }: Fields) =>
  Object.entries(shape).map(([name, member]) => {
    // zod leaves out the examples and the default of what is transformed.
    const described = { ...z.toJSONSchema(member, { io: 'input' }), ...member.meta() }
    const { $schema, description, examples, ...schema } = described
    return { name, in: 'query', required: false, description, schema, example: examples?.[0] }
  })

/** The JSON Schema of a body or an answer; `changes` go into each schema within. */
function schemaOf(fields: Fields, changes = {}) {
  const override = ({ jsonSchema }: { jsonSchema: object }) => Object.assign(jsonSchema, changes)
  const { $schema, ...schema } = z.toJSONSchema(fields, { io: 'input', override })
  return schema
}

async function describe({ resources, ...config }: OpenApiOptions) {
  // What needs no code: the health paths, headers, parameters, and the answers of failures.
  const { default: base } = await import('./openapi.json', { with: { type: 'json' } })
  // The paths of any resource, with $item for its name.
  const { default: resource } = await import('./openapi-resource.json', { with: { type: 'json' } })
  const { name: title, version, description: summary, license } = packageJson
  const { info, paths, components } = filled(base, { $maxBodyBytes: config.MAX_BODY_BYTES }, config)
  const resourcePaths = {}
  for (const describeResource of resources) {
    const { name, plural, query, input, patch, item } = describeResource()
    const Name = capitalized(name)
    const words = { $Items: capitalized(plural), $items: plural, $Item: Name, $item: name }
    const { collectionPath, itemPath, page } = filled(resource, words, config)
    Object.assign(collectionPath.get, { parameters: [...parametersOf(query), ...collectionPath.get.parameters] })
    Object.assign(resourcePaths, { [`/${plural}`]: collectionPath, [`/${plural}/{id}`]: itemPath })
    Object.assign(components.schemas, {
      [`${Name}Input`]: schemaOf(input),
      [`${Name}Patch`]: schemaOf(patch),
      // Answers have no patterns: a later release may write values in another form.
      [Name]: schemaOf(item, { pattern: undefined }),
      [`${Name}Page`]: page,
    })
  }
  return {
    ...base,
    info: { title, version, summary, license: { name: license, identifier: license }, ...info },
    paths: { ...resourcePaths, ...paths },
    components,
  }
}

/** `/openapi.json`: OpenAPI 3.1, made when it is first asked for. */
export function openApi(options: OpenApiOptions) {
  let description: ReturnType<typeof describe> | undefined
  const described = () => (description ??= describe(options))
  return new Hono<Env>().get('/openapi.json', async (c) => json(c, await described(), 200))
}
