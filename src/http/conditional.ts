import { Problem } from './problem.ts'

/** The strong entity tag of a version (RFC 9110, section 8.8.3). */
export const entityTag = (version: number) => `"${version}"`

const LIST = /^[\s,]*(?:(?:W\/)?"[\x21\x23-\x7e\x80-\xff]*"\s*(?:,[\s,]*|$))+$/
const TAG = /(W\/)?"([^"]*)"/g

/** A condition on the current version: any, or one of these. */
type Condition = '*' | { version: number; weak: boolean }[]

/** @throws Problem 400 for what is not a list of entity tags */
function parse(name: string, value: string | undefined): Condition | undefined {
  if (value === undefined) return undefined
  if (value.trim() === '*') return '*'
  if (!LIST.test(value)) throw new Problem(400, `${name} must be * or a list of entity tags, as in "1", "2".`)
  // A tag that is no version of ours matches nothing: it need not be kept.
  return [...value.matchAll(TAG)]
    .filter(([, , tag]) => /^[1-9]\d{0,8}$/.test(tag ?? ''))
    .map(([, weak, tag]) => ({ version: Number(tag), weak: weak !== undefined }))
}

/**
 * The versions that `If-Match` lets a change start from; undefined for any. Tags are compared strongly.
 * @throws Problem 400 when it is malformed
 */
export function ifMatch(value: string | undefined): number[] | undefined {
  const condition = parse('If-Match', value)
  if (condition === undefined || condition === '*') return undefined
  return condition.filter(({ weak }) => !weak).map(({ version }) => version)
}

/**
 * Whether a version is one of those that `If-None-Match` names; undefined without it. Tags are compared weakly.
 * @throws Problem 400 when it is malformed
 */
export function ifNoneMatch(value: string | undefined): ((version: number) => boolean) | undefined {
  const condition = parse('If-None-Match', value)
  if (condition === undefined) return undefined
  return (version) => condition === '*' || condition.some((tag) => tag.version === version)
}
