import { Ajv2020 } from 'ajv/dist/2020.js'
import formats from 'ajv-formats'
import { expect } from 'vitest'

type Schema = { contentSchema?: object }
type Response = { content?: Record<string, { schema: Schema }> }
type Described = { responses: Record<string, Response | { $ref: string }> }
type Description = {
  paths: Record<string, Record<string, Described>>
  components: { responses: Record<string, Response> }
}

/** Validates what the description has of JSON Schema. */
export function createAjv() {
  const ajv = new Ajv2020({ strict: false })
  formats.default(ajv)
  return ajv.addFormat('idn-email', /@/)
}

/** Answers may have more members in a later release, but what this one sends is described. */
const closed = (description: Description): Description =>
  JSON.parse(JSON.stringify(description), (_key, part) =>
    part?.type === 'object' && part.properties ? { additionalProperties: false, ...part } : part,
  )

/** Checks answers against the service's own description: status, media type and body must be what it says. */
export function createContract(given: Description) {
  const description = closed(given)
  const ajv = createAjv().addSchema(description, 'openapi')
  const paths = Object.keys(description.paths).map((path) => ({
    path,
    pattern: new RegExp(`^${path.replace(/\{\w+\}/g, '[^/]+')}$`),
  }))

  function responseOf({ responses }: Described, status: number): Response | undefined {
    const response = responses[status] ?? responses[`${Math.floor(status / 100)}XX`]
    if (!response || !('$ref' in response)) return response
    return description.components.responses[response.$ref.replace(/^.*\//, '')]
  }

  function checkLines(schema: Schema | undefined, text: string) {
    if (!schema?.contentSchema) return
    const validate = compile(schema.contentSchema)
    for (const line of text.trimEnd().split('\n')) {
      expect(validate(JSON.parse(line)), `${ajv.errorsText(validate.errors)} in ${line}`).toBe(true)
    }
  }

  const compile = (schema: object) => ajv.compile(JSON.parse(JSON.stringify(schema).replaceAll('"#/', '"openapi#/')))

  return function check(method: string, target: string, status: number, mediaType: string, text: string) {
    const path = paths.find(({ pattern }) => pattern.test(target.split('?')[0] ?? ''))?.path
    const operation = path && description.paths[path]?.[method === 'HEAD' ? 'get' : method.toLowerCase()]
    let schema: object = { $ref: '#/components/schemas/Problem' }
    if (operation) {
      const response = responseOf(operation, status)
      expect(response, `${method} ${path} does not describe ${status}`).toBeDefined()
      const content = response?.content?.[mediaType]
      if (!response?.content || method === 'HEAD') return expect(text, 'body').toBe('')
      expect(content, `${method} ${path} ${status} does not describe ${mediaType}`).toBeDefined()
      if (mediaType === 'application/x-ndjson') return checkLines(content?.schema, text)
      schema = content?.schema ?? {}
    } else if (status < 400) return
    const validate = compile(schema)
    expect(validate(JSON.parse(text)), `${ajv.errorsText(validate.errors)} in ${text}`).toBe(true)
  }
}
