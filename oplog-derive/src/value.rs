//! `#[derive(OplogValue)]`: a newtype is stored as what it wraps, an enum as labels.

use proc_macro2::TokenStream;
use quote::{ToTokens, quote};
use syn::{Data, DataEnum, DataStruct, DeriveInput, Fields, LitStr, Member, Type, Variant};

use crate::attr::{ValueAttrs, VariantAttrs};
use crate::errors::Errors;
use crate::keys::Slot;
use crate::model::{krate, refuse_generics, snake_case};

/// The implementation of `OplogValue`, with all mistakes in front of it.
pub fn derive(input: &DeriveInput) -> TokenStream {
    let mut errors = Errors::default();
    let attrs = ValueAttrs::read(&input.attrs, &mut errors);
    let krate = krate(&attrs.krate);
    let body = match &input.data {
        Data::Struct(data) => newtype(input, data, &mut errors).map(|n| n.expand(&krate)),
        Data::Enum(data) => labels(input, data, &mut errors).map(|e| e.expand(input, &krate)),
        Data::Union(data) => {
            errors.at(
                data.union_token.span,
                "`#[derive(OplogValue)]` is for newtypes and enums, not for unions",
                BY_HAND,
            );
            None
        }
    };
    let generics_fit = refuse_generics(&input.generics, "a logged value", &mut errors);
    let ident = &input.ident;
    let implementation = body.filter(|_| generics_fit).map(|body| {
        quote! {
            #[allow(deprecated, unused_qualifications, clippy::absolute_paths)]
            const _: () = {
                #[automatically_derived]
                impl #krate::__private::OplogValue for #ident {
                    #body
                }
            };
        }
    });
    let errors = errors.into_compile_errors();
    quote!(#errors #implementation)
}

const BY_HAND: &str = "for anything else, implement `oplog_diesel::OplogValue`";

/// A struct with one field.
struct Newtype<'a> {
    member: Member,
    ty: &'a Type,
}

/// The variants of an enum.
struct Labels<'a>(Vec<Labelled<'a>>);

struct Labelled<'a> {
    variant: &'a Variant,
    /// Absent if it is missing or wrong, which has been reported.
    label: Option<LitStr>,
}

fn newtype<'a>(
    input: &'a DeriveInput,
    data: &'a DataStruct,
    errors: &mut Errors,
) -> Option<Newtype<'a>> {
    for field in &data.fields {
        ValueAttrs::refuse_on_inner(&field.attrs, errors);
    }
    let mut fields = data.fields.iter().zip(data.fields.members());
    match (fields.next(), fields.next()) {
        (Some((field, member)), None) => Some(Newtype {
            member,
            ty: &field.ty,
        }),
        _ => {
            errors.at(
                input.ident.span(),
                format!("`{}` does not hold exactly one field", input.ident),
                format!(
                    "a newtype has one: `struct {}(String);`; {BY_HAND}",
                    input.ident
                ),
            );
            None
        }
    }
}

impl Newtype<'_> {
    fn expand(&self, krate: &TokenStream) -> TokenStream {
        let Newtype { member, ty } = self;
        quote! {
            const KIND: #krate::__private::Kind = <#ty as #krate::__private::OplogValue>::KIND;
            const NULLABLE: ::core::primitive::bool =
                <#ty as #krate::__private::OplogValue>::NULLABLE;
            const ROOT: ::core::primitive::bool = <#ty as #krate::__private::OplogValue>::ROOT;
            fn to_value(&self) -> #krate::__private::Value<'_> {
                <#ty as #krate::__private::OplogValue>::to_value(&self.#member)
            }
            fn from_value(
                __value: #krate::__private::Value<'_>,
            ) -> ::core::result::Result<Self, #krate::__private::ValueError> {
                match <#ty as #krate::__private::OplogValue>::from_value(__value) {
                    ::core::result::Result::Ok(__inner) => {
                        ::core::result::Result::Ok(Self { #member: __inner })
                    }
                    ::core::result::Result::Err(__error) => ::core::result::Result::Err(__error),
                }
            }
        }
    }
}

fn labels<'a>(
    input: &'a DeriveInput,
    data: &'a DataEnum,
    errors: &mut Errors,
) -> Option<Labels<'a>> {
    if data.variants.is_empty() {
        let problem = format!("`{}` has no variants, so it has no values", input.ident);
        errors.at(input.ident.span(), problem, BY_HAND);
        return None;
    }
    let mut labelled: Vec<Labelled> = Vec::new();
    for variant in &data.variants {
        if !variant.fields.is_empty() {
            errors.at(
                variant.ident.span(),
                format!("variant `{}` holds fields", variant.ident),
                format!("only enums without fields are stored as labels; {BY_HAND}"),
            );
        }
        let label = label_of(variant, &labelled, errors);
        labelled.push(Labelled { variant, label });
    }
    Some(Labels(labelled))
}

fn label_of(variant: &Variant, before: &[Labelled], errors: &mut Errors) -> Option<LitStr> {
    let suggestion = snake_case(&variant.ident);
    let label = match VariantAttrs::read(&variant.attrs, errors).label {
        Slot::Wrong => return None,
        Slot::Absent => {
            errors.at(
                variant.ident.span(),
                format!(
                    "variant `{}` has no label, the text it is stored as",
                    variant.ident
                ),
                format!("add `#[oplog(label = \"{suggestion}\")]`, and never change it again"),
            );
            return None;
        }
        Slot::Given(label) => label,
    };
    let text = label.value();
    if text.is_empty() {
        let help = format!("the correct form is `label = \"{suggestion}\"`");
        errors.at(label.span(), "`label` is empty", help);
        return None;
    }
    let same = |other: &&Labelled| {
        other
            .label
            .as_ref()
            .is_some_and(|other| other.value() == text)
    };
    if let Some(first) = before.iter().find(same) {
        errors.at(
            label.span(),
            format!(
                "label `{text}` is already that of variant `{}`",
                first.variant.ident
            ),
            "give each variant its own",
        );
        return None;
    }
    Some(label)
}

impl Labels<'_> {
    /// Compiles for every enum, also for one with mistakes.
    fn expand(&self, input: &DeriveInput, krate: &TokenStream) -> TokenStream {
        let type_name = input.ident.to_string();
        let to_text = self.0.iter().map(|Labelled { variant, label }| {
            let ident = &variant.ident;
            let pattern = match variant.fields {
                Fields::Unit => quote!(Self::#ident),
                _ => quote!(Self::#ident { .. }),
            };
            let text = label
                .as_ref()
                .map_or_else(|| quote!(""), ToTokens::to_token_stream);
            quote!(#pattern => #text,)
        });
        let from_text = self.0.iter().filter_map(|Labelled { variant, label }| {
            let label = label.as_ref().filter(|_| variant.fields.is_empty())?;
            let ident = &variant.ident;
            let value = match variant.fields {
                Fields::Unit => quote!(Self::#ident),
                _ => quote!(Self::#ident {}),
            };
            Some(quote!(#label => ::core::result::Result::Ok(#value),))
        });
        quote! {
            const KIND: #krate::__private::Kind = #krate::__private::Kind::Text;
            fn to_value(&self) -> #krate::__private::Value<'_> {
                #krate::__private::Value::Text(::std::borrow::Cow::Borrowed(match self {
                    #(#to_text)*
                }))
            }
            fn from_value(
                __value: #krate::__private::Value<'_>,
            ) -> ::core::result::Result<Self, #krate::__private::ValueError> {
                match __value {
                    #krate::__private::Value::Text(__text) => match &*__text {
                        #(#from_text)*
                        _ => ::core::result::Result::Err(
                            #krate::__private::ValueError::Label { type_name: #type_name }
                        ),
                    },
                    __other => ::core::result::Result::Err(
                        #krate::__private::Value::mismatch(&__other, #krate::__private::Kind::Text)
                    ),
                }
            }
        }
    }
}
