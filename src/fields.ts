import { isIPv4 } from 'node:net'
import { domainToASCII, domainToUnicode } from 'node:url'
import * as z from 'zod'

/** RFC 5321, section 4.5.3.1.3, without the angle brackets. */
const EMAIL_MAX_LENGTH = 254

/** Length in Unicode code points, as PostgreSQL and JSON Schema count it; most text is short enough in code units, too. */
const lengthUpTo = (maximum: number) => (value: string) => value.length <= maximum || [...value].length <= maximum

const text = z.string('must be a string')

/** No text needs more code units than this for each of its characters in normal form C: it may come as 4, each of 2. */
const UNITS_MAX = 8

const UNPRINTABLE = { error: 'must have neither control characters nor lone surrogates', abort: true }
const atMost = (maximum: number) => ({ error: `must have at most ${maximum} characters`, abort: true })

// The same rules as patterns that every language reads, for the description: few know the properties of Unicode.
const CONTROL = '\\x00-\\x1f\\x7f-\\x9f'
const NO_END = `${CONTROL}\\s\\ufeff`
const UNSEEN = `${NO_END}\\xad\\u034f\\u061c\\u115f\\u1160\\u17b4\\u17b5\\u180b-\\u180f\\u200b-\\u200f\\u202a-\\u202e\\u2060-\\u206f\\u2800\\u3164\\ufe00-\\ufe0f\\uffa0\\ufff0-\\ufff8`
const VISIBLE_PATTERN = `^([^${NO_END}][^${CONTROL}]*)?[^${UNSEEN}]([^${CONTROL}]*[^${NO_END}])?$`

/**
 * A text that is too long in any form is refused before it is normalized, which could take seconds. PostgreSQL's text
 * cannot hold U+0000 nor a lone surrogate, and nobody's name has the other control characters.
 */
const bounded = (schema: z.ZodString, maximum: number) =>
  schema.max(UNITS_MAX * maximum, atMost(maximum)).refine((value) => !/[\p{Cc}\p{Cs}]/u.test(value), UNPRINTABLE)

/** Something to see. U+2800 is a Braille cell without dots. */
const VISIBLE = /[^\s\u2800\p{Default_Ignorable_Code_Point}]/u

/** Text of 1 to `maximum` characters, at least one of them visible, in normal form C. */
export const plainText = (maximum: number) =>
  bounded(text, maximum)
    .normalize('NFC')
    .regex(VISIBLE, { error: 'must have a visible character', abort: true })
    .refine((value) => value === value.trim(), 'must not start or end with white space')
    .refine(lengthUpTo(maximum), atMost(maximum))
    .meta({ minLength: 1, maxLength: maximum, pattern: VISIBLE_PATTERN })

const INVISIBLE = /[\u2800\p{Default_Ignorable_Code_Point}]/u
/** Some scripts need joiners, and `domainToASCII` knows where. */
const INVISIBLE_IN_DOMAIN = /(?![\u200c\u200d])[\u2800\p{Default_Ignorable_Code_Point}]/u
/** `domainToASCII` reads its argument as the host of a URL. It would stop at these, or decode them. */
const URL_SYNTAX = /[/\\?#%]/
/** `domainToUnicode` leaves it as it is. */
const INVALID_PUNYCODE = /(^|\.)xn--/

/** Most addresses, which are kept as they are. The rules of `mailbox` say the same of them, but take longer. */
const PLAIN_MAILBOX = /^(?=.{1,64}@)[\w+-]+(?:\.[\w+-]+)*@(?:(?!xn--)[a-z\d](?:[a-z\d-]{0,61}[a-z\d])?\.)+[a-z]{2,63}$/

/**
 * An address in the form in which it is kept: the local part as given, the domain in Unicode and lower case (UTS 46),
 * even if it comes in Punycode. Returns '' if no mail can reach the address. No rule of zod's covers all of it:
 * `unicodeEmail` checks lengths and quotation marks, `rfc5322Email` the local part, `html5Email` the labels of the domain.
 */
function mailbox(address: string): string {
  if (PLAIN_MAILBOX.test(address)) return address
  if (!z.regexes.unicodeEmail.test(address)) return ''
  const [local = '', domain = ''] = address.split('@')
  if (INVISIBLE.test(local) || INVISIBLE_IN_DOMAIN.test(domain) || URL_SYNTAX.test(domain)) return ''
  const ascii = domainToASCII(domain)
  const unicode = domainToUnicode(ascii)
  const isReachable =
    z.regexes.rfc5322Email.test(`${local}@example.com`) &&
    z.regexes.html5Email.test(`postmaster@${ascii}`) &&
    !isIPv4(ascii) &&
    !INVALID_PUNYCODE.test(unicode) &&
    lengthUpTo(EMAIL_MAX_LENGTH)(`${local}@${ascii}`)
  return isReachable ? `${local}@${unicode}` : ''
}

/** An email address that mail can reach, of at most 254 characters. */
export const emailAddress = bounded(text, EMAIL_MAX_LENGTH)
  .refine(lengthUpTo(EMAIL_MAX_LENGTH), atMost(EMAIL_MAX_LENGTH))
  .overwrite(mailbox)
  .refine((address) => address !== '', 'must be an email address')
  .meta({ minLength: 3, maxLength: EMAIL_MAX_LENGTH, format: 'idn-email', examples: ['alice@example.com'] })

/** A time in an answer. */
export const time = z.string().meta({
  description: 'RFC 3339, in UTC, with milliseconds.',
  format: 'date-time',
  minLength: 24,
  maxLength: 24,
  examples: ['2026-01-02T03:04:05.678Z'],
})

/** Text to look up, in a query. It is bounded, because PostgreSQL normalizes it. */
export const soughtText = (maximum: number) =>
  bounded(z.string('must be given once, as text'), maximum).meta({ pattern: `^[^${CONTROL}]*$` })

/** The beginning of a text to look up, in a query. White space at its end may be amid the text. */
export const soughtPrefix = (maximum: number) =>
  soughtText(maximum)
    .normalize('NFC')
    .min(1, 'must have a character')
    .refine(lengthUpTo(maximum), atMost(maximum))
    .meta({ minLength: 1, maxLength: maximum, pattern: `^[^${CONTROL}]*$` })

/** An address to look up, in the form in which it is kept. One that no longer passes may be that of an older row. */
export const soughtEmail = soughtText(EMAIL_MAX_LENGTH)
  .overwrite((address) => mailbox(address) || address)
  // No address has a space, but that is what a + stands for in a query.
  .refine((address) => !address.includes(' '), 'must not have a space: write + as %2B')
  .meta({ pattern: '^[^\\x00-\\x20\\x7f-\\x9f]*$' })
