use super::*;

fn at(day: &str) -> Timestamp {
    format!("{day}T12:00:00Z").parse().unwrap()
}

#[test]
fn the_built_in_table_has_nothing_wrong_and_says_where_every_price_comes_from() {
    let table = PriceTable::parse("prices.yaml", BUILTIN).unwrap_or_else(|e| panic!("{e:#?}"));
    let mut names = 0;
    for (api, name, source) in table.sources() {
        let source = source.unwrap_or_else(|| panic!("{api:?} {name} has no source"));
        assert!(source.starts_with("https://"), "{name}: {source}");
        let price = table.find(api, name, at("2026-11-21")).unwrap();
        assert!(
            price.max_input.is_some() && price.max_output.is_some(),
            "{name}"
        );
        assert!(price.base.of(TokenClass::Input) > 0, "{name}");
        names += 1;
    }
    assert!(names > 80, "{names}");
    assert_eq!(PriceTable::builtin().sha256(), table.sha256());
}
